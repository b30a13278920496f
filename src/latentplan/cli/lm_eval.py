"""`latentplan lm_eval`: EleutherAI's lm-evaluation-harness, with latentplan's models and tasks registered.

latentplan lm_eval --model_args pretrained=runs/NAME --tasks latentplan_svamp

Every argument goes to `lm_eval`, whose plain command knows no packages but its own.
"""

from __future__ import annotations

import importlib
import sys

import typer

from latentplan.cli.load_or_exit import fail
from latentplan.evaluation.lm_harness import TASKS

PASS_THROUGH = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}


def lm_eval(context: typer.Context) -> None:
    """Run lm-evaluation-harness on a latentplan model; arguments are those of `lm_eval run`."""
    try:
        harness = importlib.import_module("lm_eval.__main__")
        importlib.import_module("lm_eval.models")
    except ImportError as error:
        fail(f"lm-evaluation-harness is missing ({error}): pip install 'latentplan[lm-eval]'")
    importlib.import_module("latentplan.evaluation.lm_harness.latentplan_lm")
    before, sys.argv = sys.argv, ["lm_eval", *completed(context.args)]
    try:
        harness.cli_evaluate()
    except (FileNotFoundError, NotImplementedError, ValueError) as error:
        fail(error)
    finally:
        sys.argv = before


def completed(arguments: list[str]) -> list[str]:
    """Returns the arguments of `lm_eval`, with latentplan's model, tasks and batch size unless they name
    others.
    """
    words = _flag(list(arguments), "--trust_remote_code")
    if not words or set(words) & {"-h", "--help"}:
        return words
    is_run = words[0] == "run" or words[0].startswith("-")
    for names, value in _DEFAULTS if is_run else _DEFAULTS[:1]:
        if not any(word == name or word.startswith(f"{name}=") for word in words for name in names):
            words += [names[0], value]
    return words


def _flag(words: list[str], name: str) -> list[str]:
    """Returns the words with `NAME true` or `NAME false` as `lm_eval` takes it: the name alone, or
    nothing.
    """
    if name not in words:
        return words
    at = words.index(name)
    value = words[at + 1].lower() if at + 1 < len(words) else ""
    if value not in ("true", "false"):
        return words
    return [*words[:at], *([name] if value == "true" else []), *words[at + 2 :]]


# `ls` and `validate` know the first alone. One trajectory at a time, the default there, would only be slow.
_DEFAULTS = (
    (("--include_path",), str(TASKS)),
    (("--model", "-M"), "latentplan"),
    (("--batch_size", "-b"), "128"),
)
