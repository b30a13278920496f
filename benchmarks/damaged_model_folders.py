"""Damaged and edited model folders through every command that opens one: no traceback, no hang, no code run.

    python benchmarks/damaged_model_folders.py [--folders 10000] [--seed 0] [--output damaged.jsonl]
    python benchmarks/damaged_model_folders.py --only 1234          (one of them again, with what it printed)

Each folder is a tiny model (llama, gpt2, mixture of experts, shards, adapters, a chat template, a plain
language model) with one or two things wrong with it, which follow from the seed and the folder's number:
bytes flipped, files cut off, swapped, missing or replaced by pipes and links, values of JSON files and of the
safetensors' headers changed, tensors of other types and shapes, names of code. One command is run on it, in
turn, in a process that is watched. A command may work or end with one message. Counted are

- tracebacks: anything but a message and an exit status,
- slow: more than 5 s of processor time, or more than 60 s in all (then it is ended),
- large: more than 500 MB of memory beyond what was held before,
- code: a module that the folder names was imported, or a program started, a pickle read, an address called.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import pickle
import queue
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

SLOW, HANGS, LARGE, POLL = 5.0, 60.0, 500.0, 5.0
PAYLOAD = "payload_of_a_stranger"
QUESTION = "the dial starts at 7 . it moves on by 3 . where is it ?"
PROBLEMS = ["--benchmark", "minigsm:clock", "--num_problems", "2", "--max_new_tokens", "8"]
TRAINING = [
    "--dataset_size",
    "4",
    "--use_cpu",
    "true",
    "--per_device_train_batch_size",
    "4",
    "--report_to",
    "none",
]
SFT = ["--max_latent_steps", "2", "--curriculum_stages", "1", "--curriculum_steps", "1"]
RL = ["--max_steps", "1", "--num_generations", "2", "--signal_problems", "0", "--max_completion_length", "8"]
Arguments = Callable[[str, str], list[str]]
COMMANDS: dict[str, Arguments] = {
    "ask": lambda model, out: ["ask", model, QUESTION, "--max_new_tokens", "8"],
    "evaluate": lambda model, out: ["evaluate", model, *PROBLEMS, "--output", out],
    "serve": lambda model, out: ["serve", model, "--port", "0"],
    "sft": lambda model, out: ["sft", "--model_name_or_path", model, *TRAINING, *SFT, "--output_dir", out],
    "grpo": lambda model, out: ["grpo", "--model_name_or_path", model, *TRAINING, *RL, "--output_dir", out],
    "diagnose": lambda model, out: ["diagnose", model, *PROBLEMS, "--num_generations", "2", "--output", out],
    "attribute": lambda model, out: ["attribute", model, model, *PROBLEMS, "--output", out],
    "select": lambda model, out: ["select", model, *PROBLEMS, "--num_generations", "2", "--output", out],
    "visualize": lambda model, out: ["visualize", model, *PROBLEMS, "--projection", "pca", "--output", out],
    "estimate": lambda model, out: ["estimate", "--model_name_or_path", model, *RL, "--output_dir", out],
    "push": lambda model, out: ["push", model, "somebody/model"],
}
"""Each command with its arguments, given a model or run and a folder to write to."""


# --- the models, before anything is wrong with them ---------------------------------------------------------


def make_models(folder: Path) -> list[Path]:
    """Writes a tiny model of each kind, and returns their folders; a run holds its model in `model`."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from latentplan.encoding.tokenizers import problem_texts, train_byte_level_bpe
    from latentplan.problems.minigsm import PRESETS, generate
    from latentplan.training.configs import ModelArguments, SFTConfig
    from latentplan.training.hub import write_model_card
    from latentplan.training.model_init import initialise_system

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    gpt2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 256}
    experts = {
        "model_type": "mixtral",
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        "num_key_value_heads": 2,
        **sizes,
    }
    problems = list(generate(PRESETS["clock"], split="train", count=60, seed=0))

    def build(name: str, method: str, model: ModelArguments, shard: str | None = None) -> Path:
        torch.manual_seed(0)
        config = SFTConfig(output_dir=str(folder), method=method, max_latent_steps=2, use_cpu=True)
        system, tokenizer = initialise_system(model, config, problems)
        target = folder / name
        system.save_pretrained(target, tokenizer)
        if shard is not None:
            (target / "model.safetensors").unlink()
            system.reasoner.save_pretrained(target, max_shard_size=shard)
        return target

    plain = folder / "plain"
    tokenizer = train_byte_level_bpe(problem_texts(problems), 300)
    tokenizer.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    torch.manual_seed(0)
    config = CONFIG_MAPPING["llama"](**sizes, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    AutoModelForCausalLM.from_config(config).save_pretrained(plain)
    tokenizer.save_pretrained(plain)

    llama = ModelArguments(backbone_config=sizes)
    run = folder / "run"
    build("run/model", "atp_latent", llama)
    (run / "config.yaml").write_text("dataset_name: [minigsm]\ndataset_config: clock\nmethod: atp_latent\n")
    (run / "run.json").write_text(json.dumps({"name": "run", "status": "finished", "method": "atp_latent"}))
    write_model_card(run)
    return [
        run,
        build("gpt2", "sim_cot", ModelArguments(backbone_config=gpt2)),
        build("experts", "codi", ModelArguments(backbone_config=experts)),
        build("shards", "atp_latent", llama, shard="12KB"),
        build("adapters", "coconut", ModelArguments(backbone_config=sizes, use_peft=True, lora_r=2)),
        build("pccot", "pccot", ModelArguments(backbone_config=sizes)),
        build("chat", "cot", ModelArguments(model_name_or_path=str(plain), chat_template=True)),
        plain,
    ]


# --- what can be wrong with a folder ------------------------------------------------------------------------


def values(rng: random.Random, old: Any) -> Any:
    """A value to put in the place of `old` in a JSON file."""
    if isinstance(old, bool) or not isinstance(old, int | float):
        near: list[Any] = [not old, str(old), [old], {"a": old}, None]
    else:
        near = [old + 1, old - 1, 2 * old, -old, 0, str(old), float(old), [old], None, old * 10**6]
    deep: Any = 1
    for _ in range(rng.choice([20, 200, 900])):
        deep = [deep] if rng.random() < 0.5 else {"a": deep}
    odd: list[Any] = [
        *(None, True, False, 0, 1, 2, -1, 10**9, 10**12, 10**18, 10**400, -(10**9), 0.5, 1e30, -1e-30),
        *(
            float("nan"),
            float("inf"),
            "",
            "x",
            "\0",
            "☃",
            "a" * 100_000,
            "float16",
            "bfloat16",
            "float64",
            "int8",
        ),
        *([], {}, [None], [1, 2, 3], ["x"], {"a": 1}, {"": None}, deep, "../../etc/passwd", "/dev/zero"),
        *("sdpa", "eager", "flash_attention_2", "gpt2", "llama", "bert", "t5", "mamba", "auto"),
        *code_names(),
    ]
    return rng.choice(near if rng.random() < 0.4 else odd)


def code_names() -> list[Any]:
    """Names of code, in every form that a configuration could hold."""
    own = f"{PAYLOAD}:Head"
    return [
        own,
        f"{PAYLOAD}:OwnMethod",
        "os:system",
        f"{PAYLOAD}.Head",
        f"{PAYLOAD}--{PAYLOAD}.Head",
        "somebody/kernel",
        "somebody/kernel@main:fn",
        {"AutoTokenizer": [f"{PAYLOAD}.Head", f"{PAYLOAD}.Head"], "AutoConfig": f"{PAYLOAD}.Head"},
        {"": "somebody/kernel", "backbone_config": "somebody/kernel"},
        {"quant_method": "torchao", "quant_type": {"default": {"_type": own, "_data": {}}}},
        {"r": 2, "megatron_config": {}, "megatron_core": PAYLOAD, "target_modules": ["q_proj"]},
        {"r": 2, "target_modules": "(a+)+$", "custom_modules": {own: own}},
    ]


ADDED_KEYS = [
    "auto_map",
    "_attn_implementation",
    "attn_implementation",
    "_attn_implementation_internal",
    "experts_implementation",
    "_code_source",
    "code_source",
    "_named_kernels",
    "sub_configs",
    "attribute_map",
    "to_dict",
    "quantization_config",
    "lora",
    "num_labels",
    "torch_dtype",
    "dtype",
    "tokenizer_class",
    "custom_generate",
    "use_kernels",
    "per_layer_config",
    "layer_types",
    "rope_scaling",
    "rope_parameters",
    "architectures",
    "base_model_tp_plan",
    "pruned_heads",
    "is_encoder_decoder",
    "is_decoder",
    "return_dict",
    "output_attentions",
    "tie_word_embeddings",
    "chat_template",
    "model_max_length",
    "added_tokens_decoder",
    "extra_special_tokens",
    "special_tokens_map_file",
    "vocab_file",
    "tokenizer_file",
    "unk_token",
]


def json_paths(content: Any, prefix: tuple = ()) -> list[tuple]:
    """The path of every value inside, at most a few of long lists and mappings."""
    inside = list(content.items()) if isinstance(content, dict) else list(enumerate(content))
    found = []
    for key, value in inside[:60] + inside[-5:] if len(inside) > 65 else inside:
        found.append((*prefix, key))
        if isinstance(value, dict | list):
            found += json_paths(value, (*prefix, key))
    return found


def edit_json(rng: random.Random, content: Any) -> str:
    """Changes a value of a mapping, takes it out, or adds one; says which."""
    paths = json_paths(content)
    if not paths or rng.random() < 0.15:
        key, value = rng.choice(ADDED_KEYS), rng.choice([rng.choice(code_names()), values(rng, None)])
        places = [content, *(each for each in content.values() if isinstance(each, dict))]
        rng.choice(places)[key] = value
        return f"{key} added: {str(value)[:60]}"
    top = [path for path in paths if len(path) == 1]
    *above, key = rng.choice(top if rng.random() < 0.4 else paths)
    place = content
    for each in above:
        place = place[each]
    shown = ".".join(map(str, [*above, key]))
    if rng.random() < 0.2:
        del place[key]
        return f"{shown} taken out"
    place[key] = values(rng, place[key])
    return f"{shown} = {str(place[key])[:60]}"


def damage_json(rng: random.Random, folder: Path, bases: list[Path]) -> str:
    files = [file for file in all_files(folder) if file.suffix == ".json"]
    preferred = [file for file in files if file.name == "config.json"]
    file = rng.choice(preferred if preferred and rng.random() < 0.5 else files)
    content = json.loads(file.read_text())
    said = edit_json(rng, content)
    file.write_text(json.dumps(content))
    return f"{file.relative_to(folder)}: {said}"


def damage_header(rng: random.Random, folder: Path, bases: list[Path]) -> str:
    """Edits the header of a safetensors file; its length is right, or that of the old header."""
    file = rng.choice([each for each in all_files(folder) if each.suffix == ".safetensors"])
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    said = edit_json(rng, header)
    new = json.dumps(header).encode()
    size = rng.choice([len(new), len(new), len(new), length, 2**63, 10**12, 0])
    file.write_bytes(struct.pack("<Q", size) + new + data[8 + length :])
    return f"{file.relative_to(folder)}: header of {size} bytes, {said}"


def damage_tensor(rng: random.Random, folder: Path, bases: list[Path]) -> str:
    import torch
    from safetensors.torch import load_file, save_file

    file = rng.choice([each for each in all_files(folder) if each.suffix == ".safetensors"])
    tensors = load_file(file)
    name = rng.choice(sorted(tensors))
    old = tensors[name]
    kinds = {
        "taken out": lambda: None,
        "of other type": lambda: old.to(rng.choice([torch.int8, torch.float64, torch.bfloat16, torch.bool])),
        "flat": lambda: old.flatten().clone(),
        "transposed": lambda: old.T.contiguous() if old.ndim == 2 else old[:-1].clone(),
        "longer": lambda: torch.cat([old, old]),
        "empty": lambda: old[:0].clone(),
        "scalar": lambda: torch.tensor(1.0),
        "nan": lambda: torch.full_like(old, float("nan")),
        "infinite": lambda: torch.full_like(old, float("inf")),
        "huge": lambda: torch.full_like(old, 3e38),
        "zero": lambda: torch.zeros_like(old),
        "large": lambda: old * 1e6,
    }
    kind = rng.choice(sorted(kinds))
    changed = kinds[kind]()
    del tensors[name]
    if changed is not None:
        tensors[name if rng.random() < 0.9 else f"{name}.more"] = changed
    save_file(tensors, file, metadata={"format": rng.choice(["pt", "pt", "pt", "tf"])})
    return f"{file.relative_to(folder)}: {name} {kind}"


def damage_bytes(rng: random.Random, folder: Path, bases: list[Path]) -> str:
    file = rng.choice(all_files(folder))
    data = bytearray(file.read_bytes())
    kind = rng.choice(["flipped", "flipped", "cut off", "empty", "longer", "zeroed", "random", "other text"])
    if kind == "flipped" and data:
        ahead = min(len(data), rng.choice([200, len(data)]))
        for _ in range(rng.choice([1, 3, 30])):
            data[rng.randrange(ahead)] ^= 1 << rng.randrange(8)
    elif kind == "cut off":
        del data[rng.randrange(len(data) + 1) :]
    elif kind == "empty":
        data.clear()
    elif kind == "longer":
        data += rng.randbytes(rng.choice([1, 1000]))
    elif kind == "zeroed" and data:
        start = rng.randrange(len(data))
        data[start : start + 64] = bytes(len(data[start : start + 64]))
    elif kind == "random":
        data = bytearray(rng.randbytes(rng.choice([1, 100, 10_000])))
    else:
        data = bytearray(
            rng.choice([b"{}", b"[]", b"null", b"1", b'"x"', b"version https://git-lfs", b"\xff\xfe"])
        )
    file.write_bytes(bytes(data))
    return f"{file.relative_to(folder)}: {kind}"


def damage_place(rng: random.Random, folder: Path, bases: list[Path]) -> str:
    """Something that is no regular file in the place of one, or nothing."""
    file = rng.choice(all_files(folder))
    file.unlink()
    kind = rng.choice(
        ["gone", "gone", "gone", "folder", "loop", "dangling", "zero", "null", "pipe", "itself"]
    )
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind != "gone":
        targets = {
            "loop": file.name,
            "dangling": "nowhere",
            "zero": "/dev/zero",
            "null": "/dev/null",
            "itself": ".",
        }
        file.symlink_to(targets[kind])
    return f"{file.relative_to(folder)}: {kind}"


def damage_folder(rng: random.Random, folder: Path, bases: list[Path]) -> str:
    """A part of the folder gone or not a folder, or the file of another model."""
    parts = sorted(path for path in folder.rglob("*") if path.is_dir())
    if parts and rng.random() < 0.4:
        part = rng.choice(parts)
        shutil.rmtree(part)
        if rng.random() < 0.5:
            part.write_text("{}")
        return f"{part.relative_to(folder)}: gone"
    other = rng.choice(bases)
    source = rng.choice(all_files(other))
    target = rng.choice(all_files(folder))
    if rng.random() < 0.7:
        same = [file for file in all_files(other) if file.name == target.name]
        source = rng.choice(same) if same else source
    shutil.copy(source, target)
    return f"{target.relative_to(folder)}: {source.relative_to(other)} of {other.name}"


class _Evil:
    def __reduce__(self) -> Any:
        return (os.system, (f"touch {PAYLOAD}_ran",))


def damage_added(rng: random.Random, folder: Path, bases: list[Path]) -> str:
    """A file more, of those that some library looks for."""
    place = rng.choice([path.parent for path in all_files(folder) if path.name == "config.json"])
    adapter = {
        "peft_type": "LORA",
        "base_model_name_or_path": rng.choice(["somebody/model", str(bases[-1])]),
        "auto_mapping": {"base_model_class": "Head", "parent_library": PAYLOAD},
        "target_modules": ["q_proj"],
        "r": 2,
    }
    texts: dict[str, Any] = {
        "adapter_config.json": adapter,
        "generation_config.json": {"max_length": "x", "custom_generate": PAYLOAD},
        "added_tokens.json": {"<|more|>": rng.choice([10**9, -1, "x", 3])},
        "special_tokens_map.json": {"pad_token": rng.choice([None, 3, "<|more|>", {"content": []}])},
        "vocab.json": {"a": 0},
        "preprocessor_config.json": {"auto_map": {"AutoProcessor": f"{PAYLOAD}.Head"}},
        "model.safetensors.index.json": {
            "weight_map": {"a": rng.choice(["../../x.safetensors", "b.safetensors"])}
        },
        "tokenizer.model": "x",
        "merges.txt": "x",
        "chat_template.jinja": rng.choice(
            [
                "{{ cycler.__init__.__globals__.os.system('touch x') }}",
                "{{ 1 / 0 }}",
                "{% for",
                "{{ messages[5].content }}",
                "{% include 'x' %}",
                "",
                "{{ raise_exception('no') }}",
            ]
        ),
        "chat_template.json": {"chat_template": [1]},
        "custom_generate/generate.py": f"import {PAYLOAD}",
        f"{PAYLOAD}.py": f"import {PAYLOAD}",
    }
    name = rng.choice([*texts, "pytorch_model.bin", "training_args.bin", "optimizer.pt"])
    file = place / name
    file.parent.mkdir(exist_ok=True)
    if name in texts:
        file.write_text(texts[name] if isinstance(texts[name], str) else json.dumps(texts[name]))
    else:
        file.write_bytes(pickle.dumps({"a": _Evil()}))
        if rng.random() < 0.5:
            for weights in place.glob("model*.safetensors*"):
                weights.unlink()
    return f"{file.relative_to(folder)}: added"


def all_files(folder: Path) -> list[Path]:
    """The regular files of a folder that are not code."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".md"))


DAMAGES = {
    damage_json: 8,
    damage_header: 1,
    damage_tensor: 2,
    damage_bytes: 3,
    damage_place: 2,
    damage_folder: 1,
    damage_added: 2,
}
"""The kinds of damage, and how often each is done."""


def damaged(number: int, seed: int, bases: list[Path], target: Path) -> str:
    """Makes folder `number` at `target`; says what is wrong with it."""
    rng = random.Random(f"{seed}/{number}")
    base = rng.choice(bases)
    shutil.copytree(base, target)
    said = []
    for _ in range(rng.choice([1, 1, 1, 2])):
        kind = rng.choices(list(DAMAGES), list(DAMAGES.values()))[0]
        try:
            said.append(kind(rng, target, bases))
        except Exception as error:
            said.append(f"not again: {type(error).__name__}")  # the first damage left nothing for the second
    return f"{base.name}: {'; '.join(said)}"


# --- running a command on it --------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What a command did with a folder."""

    number: int
    command: str
    what: str
    status: int = 0
    seconds: float = 0.0
    processor_seconds: float = 0.0
    megabytes: float = 0.0
    hung: bool = False
    code: list[str] = field(default_factory=list)
    traceback: str = ""
    output: str = ""

    @property
    def faults(self) -> list[str]:
        """Which of the four must not happen."""
        slow = self.processor_seconds > SLOW or self.hung
        found = {
            "traceback": bool(self.traceback) or "Traceback" in self.output,
            "slow": slow,
            "large": self.megabytes > LARGE,
            "code": bool(self.code),
        }
        return [name for name, there in found.items() if there]


class Watch:
    """Notes what a folder's code would do: imports of the payload, programs, pickles, connections."""

    def __init__(self) -> None:
        self.on, self.seen = False, list[str]()
        sys.addaudithook(self._event)

    def _event(self, event: str, arguments: tuple) -> None:
        if not self.on:
            return
        text = str(arguments)[:200]
        payload = PAYLOAD in text
        started = event in ("os.system", "os.exec", "subprocess.Popen", "pickle.find_class", "socket.connect")
        if event == "subprocess.Popen" and arguments[0] == "git":  # the commit, for the run's record
            return
        if (payload and event in ("import", "exec")) or started:
            self.seen.append(f"{event} {text}")


def run_one(number: int, command: str, what: str, folder: Path, work: Path, watch: Watch) -> Outcome:
    """Runs a command on a folder in this process."""
    import traceback

    from typer.testing import CliRunner

    from latentplan.cli.app import app

    outcome = Outcome(number, command, what)
    arguments = COMMANDS[command](str(folder), str(work / "out"))
    before, started, used = peak_megabytes(), time.perf_counter(), time.process_time()
    watch.on, watch.seen = True, []
    try:
        done = CliRunner().invoke(app, arguments, env={"COLUMNS": "400"})
    finally:
        watch.on = False
    outcome.seconds, outcome.processor_seconds = time.perf_counter() - started, time.process_time() - used
    outcome.megabytes = peak_megabytes() - before
    outcome.status, outcome.output = done.exit_code, done.output[-3000:]
    outcome.code = [*watch.seen, *(str(each) for each in work.glob(f"{PAYLOAD}_ran"))]
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        outcome.traceback = "".join(traceback.format_exception(done.exception))[-4000:]
    return outcome


def peak_megabytes() -> float:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_payload(work: Path) -> None:
    """Writes the module that damaged folders name: it leaves a file where it runs."""
    (work / f"{PAYLOAD}.py").write_text(
        "import pathlib\n"
        f"pathlib.Path({str(work / f'{PAYLOAD}_ran')!r}).touch()\n"
        "from latentplan.modeling.latent_heads import GaussianHead as Head\n"
        "from latentplan.methods.atp_latent import ATPLatent as OwnMethod\n"
    )


def prepare(work: Path) -> Watch:
    """Makes this process one that runs commands: libraries loaded, servers that do not serve."""
    import torch
    import uvicorn

    os.chdir(work)
    sys.path.insert(0, str(work))
    write_payload(work)
    torch.set_num_threads(1)
    uvicorn.Server.run = lambda self, sockets=None: None  # type: ignore[method-assign]
    import latentplan.cli.evaluate
    import latentplan.serving.server
    import latentplan.training.run_training  # noqa: F401

    return Watch()


def work_through(numbers: list[int], seed: int, bases: list[Path], work: Path, results: Any) -> None:
    """Runs the folders of `numbers` in turn, and puts what was begun and what came of it into `results`."""
    from latentplan.cli.subprocess_entry import end_with_parent

    end_with_parent()
    work.mkdir(parents=True, exist_ok=True)
    watch = prepare(work)
    names = list(COMMANDS)
    for number in numbers:
        folder = work / "folder"
        for old in (folder, work / "out"):
            shutil.rmtree(old, ignore_errors=True)
        what = damaged(number, seed, bases, folder)
        command = names[number % len(names)]
        if what.startswith("plain: "):  # which the others open as little as an empty folder
            command = "sft"
        elif command == "push" and not what.startswith("run: "):
            command = "ask"
        results.put(Outcome(number, command, what, seconds=-1.0))
        results.put(run_one(number, command, what, folder, work, watch))
        signal.signal(signal.SIGINT, signal.default_int_handler)  # `serve` has taken it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def run_all(numbers: list[int], seed: int, bases: list[Path], work: Path, on_outcome: Callable) -> None:
    """Runs all folders in a process of their own, a new one where a command hangs or ends it."""
    context = multiprocessing.get_context("spawn")
    left = list(numbers)
    while left:
        results = context.Queue()
        process = context.Process(target=work_through, args=(left, seed, bases, work, results))
        process.start()
        left = follow(process, results, left, on_outcome)
        process.kill()
        process.join()


def follow(process: Any, results: Any, left: list[int], on_outcome: Callable) -> list[int]:
    """Takes outcomes from a process until it is done, hangs or has ended; the folders that are left."""
    begun, waited = None, 0.0
    while left:
        try:
            got = results.get(timeout=POLL)
        except queue.Empty:
            waited += 0.0 if is_paused(process.pid) else POLL
            if process.is_alive() and (begun is None or waited < HANGS):
                continue
            if begun is None:
                raise RuntimeError(f"folder {left[0]} could not be made") from None
            begun.seconds, begun.hung = waited, process.is_alive()
            begun.traceback = "" if begun.hung else "the process ended"
            on_outcome(begun)
            return left[1:]
        waited = 0.0
        if got.seconds < 0:
            begun = got
            continue
        on_outcome(got)
        begun, left = None, left[1:]
    return left


def is_paused(pid: int) -> bool:
    """Whether somebody has stopped a process for a while, which is no fault of what it does."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    return False


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folders", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="+", default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("damaged.jsonl"))
    options = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")
    numbers = options.only or list(range(options.first, options.first + options.folders))
    counts: Counter[str] = Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as place, options.output.open("w") as lines:
        bases = make_models(Path(place) / "models")

        def note(outcome: Outcome) -> None:
            nonlocal slowest
            counts["folders"] += 1
            counts["worked" if outcome.status == 0 else "refused"] += 1
            counts.update(outcome.faults)
            slowest = max(slowest, outcome.processor_seconds)
            if outcome.faults or options.only:
                print(
                    f"{outcome.number} {outcome.command} {outcome.what}: {', '.join(outcome.faults)}",
                    flush=True,
                )
            if options.only:
                print(outcome.output, outcome.traceback, outcome.code)
            lines.write(json.dumps({**asdict(outcome), "faults": outcome.faults}) + "\n")
            lines.flush()
            if counts["folders"] % 100 == 0:
                print(dict(counts), flush=True)

        run_all(numbers, options.seed, bases, Path(place) / "work", note)
    faults = {name: counts[name] for name in ("traceback", "slow", "large", "code")}
    print(f"{dict(counts)}; slowest {slowest:.1f} s of processor time; faults {faults}")
    sys.exit(any(faults.values()))


if __name__ == "__main__":
    main()
