"""The parts of `same_results.py`: tiny models of five families, the problems, and the commands.

Backbones and their tokenizer are made with transformers and tokenizers alone, and the commands are those that
users type, so that nothing here depends on where things are in latentplan.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

INPUTS = "../../inputs"  # as commands see it, from the folder of a part
# What each family's configuration has beside its sizes, and the method trained beside ATP-Latent.
FAMILIES: dict[str, tuple[dict[str, Any], str]] = {
    "llama": ({"num_key_value_heads": 1}, "cot"),
    "gpt2": ({"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}, "coconut"),
    "qwen3": ({"num_key_value_heads": 1, "head_dim": 16}, "codi"),
    "gemma3_text": ({"num_key_value_heads": 1, "head_dim": 16}, "sim_cot"),
    "gpt_neox": ({}, "colar"),
}
PARTS = ("quickstart", *FAMILIES)
DIAGNOSED = "llama"
"""The family whose latents are also replaced, noised and probed, which is the same for all."""


# What both revisions start from.


def make_inputs(folder: Path, families: Sequence[str]) -> None:
    """Writes the problems, and a random backbone of each family with its tokenizer, unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    for name, count in (("train", 128), ("test", 40)):
        lines = [json.dumps(_problem(rng)) + "\n" for _ in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    for family in families:
        if not (folder / family / "config.json").is_file():
            _make_backbone(family, folder)


def fingerprint(folder: Path, families: Sequence[str]) -> str:
    """A hash of what `make_inputs` wrote for these families."""
    files = [*folder.glob("*.jsonl"), *(file for family in families for file in (folder / family).iterdir())]
    return hash_of(files, folder)


def hash_of(files: Sequence[Path], parent: Path) -> str:
    """SHA-256 of the files' contents and of their names below `parent`."""
    digest = hashlib.sha256()
    for file in sorted(files):
        if file.is_file():
            digest.update(f"{file.relative_to(parent)} {file.stat().st_size}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _problem(rng: random.Random) -> dict[str, Any]:
    """Additions and subtractions of 1 to 3 steps, within 0 to 9."""
    value = rng.randint(0, 9)
    words, steps = [f"tom has {value} apples ."], []
    for _ in range(rng.randint(1, 3)):
        change = rng.choice([each for each in range(-3, 4) if each and 0 <= value + each <= 9])
        words.append(f"he {'gets' if change > 0 else 'eats'} {abs(change)} .")
        steps.append(f"<<{value}{'+' if change > 0 else '-'}{abs(change)}={value + change}>>")
        value += change
    return {"question": " ".join([*words, "how many ?"]), "steps": steps, "answer": str(value)}


def _make_backbone(family: str, folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = _tokenizer(folder / "train.jsonl")
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **({} if family == "gpt2" else {"intermediate_size": 64}),
        **FAMILIES[family][0],
    )
    torch.manual_seed(0)
    partial = folder / f"{family}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    AutoModelForCausalLM.from_config(config).save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(folder / family, ignore_errors=True)
    partial.rename(folder / family)


def _tokenizer(problems: Path) -> Any:
    """Words, numbers and signs as tokens."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pattern = r"\d+|[A-Za-z]+|<<|>>|###|\n|[^\sA-Za-z\d]"
    splits = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.Split(Regex(r"[^\S\n]+"), behavior="removed"),
        ]
    )
    special = ["<|pad|>", "<|eos|>", "<|unk|>"]
    words = {word for word, _ in splits.pre_tokenize_str("\n###" + " ".join(_texts(problems)))}
    known = {word: number for number, word in enumerate([*special, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = splits
    tokenizer.decoder = decoders.Sequence([decoders.Replace("###", "### "), decoders.Fuse()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|eos|>",
        unk_token="<|unk|>",
        padding_side="left",
    )


def _texts(problems: Path) -> Iterator[str]:
    for line in problems.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield from (row["question"], *row["steps"], row["answer"])


# The commands of a part: a name and its settings.

Command = tuple[list[str], dict[str, Any]]


def commands_of(part: str, scale: float, num_problems: int) -> list[Command]:
    """The commands of a part, with settings by their names in the oldest revision."""
    if part == "quickstart":
        settings = {"scale": scale, "num_problems": num_problems, "workers": 1, "output": "quickstart"}
        return [(["quickstart"], settings)]
    other = FAMILIES[part][1]
    commands = [
        _sft(part, "atp_latent"),
        _grpo("score_function", per_device_train_batch_size=16, steps_per_generation=2, beta=0.05),
        _grpo("pathwise", per_device_train_batch_size=32, answers_per_latent=2, num_iterations=2),
        _evaluate("atp_latent", temperature=0),
        _evaluate("grpo_score_function", temperature=1, num_generations=4),
        _evaluate("grpo_pathwise", temperature=1, latent_temperature=0.5, num_generations=4),
        _sft(part, other),
        _evaluate(other, temperature=0),
    ]
    return [*commands, _diagnose("atp_latent")] if part == DIAGNOSED else commands


_TRAINING = {"dataset_name": f"{INPUTS}/train.jsonl", "logging_steps": 1, "seed": 7, "torch_threads": 1}
_CHAINS: dict[str, dict[str, Any]] = {
    "cot": {"curriculum_steps": 12},
    "codi": {"max_latent_steps": 3, "latents_per_step": 1, "curriculum_steps": 8},
    "colar": {"max_latent_steps": 8, "latents_per_step": 1, "compression_factor": 3, "curriculum_steps": 8},
}
_LATENT_CHAINS = {
    "max_latent_steps": 3,
    "latents_per_step": 1,
    "curriculum_stages": [1, 3],
    "curriculum_steps": [8, 12],
}


def _sft(family: str, method: str) -> Command:
    settings = {
        "method": method,
        "model_name_or_path": f"{INPUTS}/{family}",
        "output_dir": method,
        "step_separator": "",
        "learning_rate": 5e-3,
        "per_device_train_batch_size": 16,
        "eval_dataset_name": f"{INPUTS}/test.jsonl",
        "eval_dataset_size": 8,
        **_CHAINS.get(method, _LATENT_CHAINS),
        **_TRAINING,
    }
    return ["sft"], settings


def _grpo(gradient: str, **settings: Any) -> Command:
    shared = {
        "estimator": gradient,
        "model_name_or_path": "atp_latent",
        "output_dir": f"grpo_{gradient}",
        "num_generations": 4,
        "max_steps": 4,
        "max_completion_length": 8,
        "learning_rate": 1e-3,
        "reward_funcs": ["accuracy", "format", "coherence_strict"],
        "reward_weights": [1.0, 0.5, 0.1],
        "signal_problems": 16,
        "log_completions": True,
        "eval_dataset_name": f"{INPUTS}/test.jsonl",
        "eval_dataset_size": 8,
    }
    return ["grpo"], {**shared, **settings, **_TRAINING}


_EVALUATING = {"benchmark": f"{INPUTS}/test.jsonl", "max_new_tokens": 12, "torch_threads": 1, "device": "cpu"}


def _evaluate(run: str, **settings: Any) -> Command:
    return ["evaluate", run], {**_EVALUATING, **settings}


def _diagnose(run: str) -> Command:
    return ["diagnose", run], {**_EVALUATING, "num_generations": 4, "fail_on": "none"}


def spelled(command: Command, renamed: Mapping[str, str], known: str) -> list[str]:
    """The words of a command; a renamed setting by its new name where `known`, the help, has it."""
    words, settings = list(command[0]), command[1]
    for name, value in settings.items():
        new = renamed.get(name)
        name = new if new and f"--{new}" in known else name
        values = value if isinstance(value, list) else [value]
        words += [f"--{name}", *(str(each) for each in values)]
    return words
