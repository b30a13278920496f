"""`latentplan serve`: models behind OpenAI's HTTP interface.

latentplan serve runs/NAME
latentplan serve runs/sft runs/rl --name before --name after --port 8080 --api_key SECRET
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from latentplan.cli.load_or_exit import fail, open_model
from latentplan.cli.options import Device, InputRuleName, InputRuleSettings, TorchThreads, TrustRemoteCode
from latentplan.common.run_files import without_model
from latentplan.modeling.loading import LoadedModel
from latentplan.serving.settings import LOCALHOST, ServeSettings

_EXTRA = ("fastapi", "starlette", "uvicorn", "prometheus_client")


Models = Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Runs, or model folders.")]
Name = Annotated[
    list[str] | None,
    typer.Option("--name", help="Of each model, in their order; the folder's own if absent."),
]
Host = Annotated[str, typer.Option("--host", help="0.0.0.0 lets other machines in.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes any free one.")]
ApiKey = Annotated[
    str | None,
    typer.Option("--api_key", envvar="LATENTPLAN_API_KEY", help="What clients must send; none if absent."),
]
MaxBatchSize = Annotated[
    int, typer.Option("--max_batch_size", min=1, help="Trajectories that are computed together at most.")
]
MaxWaitMs = Annotated[
    float,
    typer.Option("--max_wait_ms", min=0, help="A question waits so long for company, at most."),
]
MaxQueue = Annotated[int, typer.Option("--max_queue", min=1, help="Trajectories that wait at most.")]
MaxQuestionTokens = Annotated[
    int, typer.Option("--max_question_tokens", min=1, help="Tokens of a question at most.")
]
MaxSamples = Annotated[int, typer.Option("--max_samples", min=1, help="Trajectories of one request at most.")]
MaxNewTokens = Annotated[
    int, typer.Option("--max_new_tokens", min=1, help="Text tokens of a trajectory at most.")
]
Temperature = Annotated[
    float,
    typer.Option("--temperature", min=0, help="Where a request has none; 0 takes the most probable."),
]
RequestTimeout = Annotated[
    float, typer.Option("--request_timeout", help="Seconds that a request may take, waiting included.")
]
LastMessageOnly = Annotated[
    bool,
    typer.Option(
        "--last_message_only",
        help="Take the last message of a conversation and drop the rest, instead of refusing it.",
    ),
]
AllowedHosts = Annotated[
    list[str] | None,
    typer.Option(
        "--allowed_hosts",
        help="Names by which clients may call this server, or *; if absent, localhost where --host is that, "
        "else all. May be repeated.",
    ),
]
AllowedOrigins = Annotated[
    list[str] | None,
    typer.Option(
        "--allowed_origins",
        help="Web pages of other addresses that may ask, https://example.org, or *; none if absent. May be "
        "repeated.",
    ),
]


def serve(
    models: Models,
    name: Name = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_key: ApiKey = None,
    max_batch_size: MaxBatchSize = ServeSettings.max_batch_size,
    max_wait_ms: MaxWaitMs = ServeSettings.max_wait_ms,
    max_queue: MaxQueue = ServeSettings.max_queue,
    max_question_tokens: MaxQuestionTokens = ServeSettings.max_question_tokens,
    max_samples: MaxSamples = ServeSettings.max_samples,
    max_new_tokens: MaxNewTokens = ServeSettings.max_new_tokens,
    temperature: Temperature = ServeSettings.temperature,
    request_timeout: RequestTimeout = ServeSettings.request_timeout,
    last_message_only: LastMessageOnly = False,
    allowed_hosts: AllowedHosts = None,
    allowed_origins: AllowedOrigins = None,
    input_rule: InputRuleName = None,
    input_rule_settings: InputRuleSettings = None,
    device: Device = None,
    torch_threads: TorchThreads = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Serve models over HTTP: OpenAI's interface, and a page that shows what they think."""
    try:
        settings = ServeSettings(
            api_key=api_key,
            max_batch_size=max_batch_size,
            max_wait_ms=max_wait_ms,
            max_queue=max_queue,
            max_question_tokens=max_question_tokens,
            max_samples=max_samples,
            max_new_tokens=max_new_tokens,
            default_new_tokens=min(max_new_tokens, ServeSettings.default_new_tokens),
            temperature=temperature,
            request_timeout=request_timeout,
            last_message_only=last_message_only,
            allowed_hosts=tuple(allowed_hosts or hosts_of(host)),
            allowed_origins=tuple(allowed_origins or ()),
        )
        names = model_names(models, name or [])
    except ValueError as error:
        fail(error)
    # What may fail at once comes before the models, which may take long to open.
    create_app, make_server = _server_parts()
    listening = _bound(host, port)
    opened = [
        open_model(
            folder,
            device,
            torch_threads,
            trust_remote_code=trust_remote_code,
            input_rule=input_rule,
            input_rule_settings=input_rule_settings,
        )
        for folder in models
    ]
    named = dict(zip(names, opened, strict=True))
    app = create_app(named, settings, dict(zip(names, models, strict=True)))
    _announce(named, listening, settings)
    _run(make_server(app, settings.request_timeout), listening)


def _run(server: Any, listening: socket.socket) -> None:
    # The server finishes what is running, then raises the signal again; by then there is nothing left to do.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run([listening])


def hosts_of(host: str) -> tuple[str, ...]:
    """Returns the names by which clients may call a server at this address: all where others can reach it."""
    return LOCALHOST if host in LOCALHOST or host.startswith("127.") else ("*",)


def _bound(host: str, port: int) -> socket.socket:
    """Returns a socket at this address that does not listen yet; else the command ends."""
    try:
        (family, kind, _, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        fail(f"cannot listen at {host}, port {port}: {error.strerror}; choose another with --host and --port")
    return bound


def model_names(folders: Sequence[Path], names: Sequence[str]) -> list[str]:
    """Returns the name of each model: as given, else that of its run or folder.

    Raises:
        ValueError: there are names for some models only, or two models have the same.
    """
    if names and len(names) != len(folders):
        raise ValueError(f"{len(folders)} models and {len(names)} names: give each model a --name, or none")
    chosen = list(names) or [without_model(folder.resolve()).name for folder in folders]
    for name in chosen:
        if not name.strip():
            raise ValueError("a model's name is empty")
        if chosen.count(name) > 1:
            raise ValueError(f"two models are called {name!r}: tell them apart with --name, one for each")
    return chosen


def _server_parts() -> tuple[Any, Any]:
    try:
        import uvicorn  # noqa: F401

        from latentplan.serving.connections import make_server
        from latentplan.serving.server import create_app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        fail(f"serving needs {error.name}: pip install -c constraints.txt -e '.[serve]'")
    return create_app, make_server


def _announce(models: dict[str, LoadedModel], listening: socket.socket, settings: ServeSettings) -> None:
    console = Console(soft_wrap=True, highlight=False)
    for name, model in models.items():
        config = model.reasoner.config
        console.print(Text(f"{name}: {config.method} on {model.reasoner.device}"))
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{port}"
    console.print(Text(f"in a browser {address}/, for OpenAI clients {address}/v1; Ctrl-C ends it", "bold"))
    if host not in ("127.0.0.1", "::1") and settings.api_key is None:
        console.print(Text("anyone who reaches this machine may ask: --api_key changes that", style="yellow"))
