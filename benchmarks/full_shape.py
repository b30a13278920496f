"""Speed and memory of a recipe at full shape, with random weights: no download, nothing learned.

    python benchmarks/full_shape.py                              Llama-3.2-1B: 20 steps of sft, 16 of grpo
    python benchmarks/full_shape.py --folder llama-3.1-8b-lora   8B with LoRA, supervised stage only
    python benchmarks/full_shape.py --tiny                       the same road in seconds, on a CPU

A model of the recipe's architecture is initialised at random, with a tokenizer trained on minigsm and the
full vocabulary; then `latentplan sft` and `latentplan grpo` train it with the settings of the recipes, at the
last stage of the curriculum, where every slot is in use. The table at the end, and OUTPUT/summary.json, hold
seconds a step, tokens a second and the peak of allocated memory beside `latentplan estimate`.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import statistics
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from latentplan.cli.app import app
from latentplan.cli.estimate import read_plan
from latentplan.encoding.processor import ProblemProcessor
from latentplan.encoding.tokenizers import add_special_tokens, problem_texts, train_byte_level_bpe
from latentplan.experiments.recipes import recipe_names
from latentplan.problems.minigsm import PRESETS, generate
from latentplan.training.memory.backbone_shapes import SHAPES, shape_from
from latentplan.training.memory.dry_run import Lengths
from latentplan.training.memory.memory_estimate import estimate_memory

BACKBONES = {
    "llama-3.2-1b": "meta-llama/Llama-3.2-1B-Instruct",
    "llama-3.1-8b-lora": "meta-llama/Llama-3.1-8B-Instruct",
    "qwen2.5-0.5b": "Qwen/Qwen2.5-0.5B-Instruct",
}
TINY_SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 1024,
}
TINY_FLAGS = ["--effective_batch_size", "8", "--per_device_train_batch_size", "4"]
TINY_FLAGS += ["--max_latent_steps", "2", "--latents_per_step", "1"]
ON_CPU = [] if torch.cuda.is_available() else ["--use_cpu", "true"]
ALONE = ["--exclude_benchmarks", "minigsm:default", "--eval_strategy", "no", "--save_strategy", "no"]
"""What the recipes would fetch from the hub or write on the way is left out."""
WARM_UP = 3
"""Steps at the start that are not timed: kernels are chosen and memory is reserved in them."""


def make_model(folder: Path, name: str, tiny: bool) -> Any:
    """A random model of the backbone's shape, and a tokenizer for minigsm, in `folder`; the tokenizer."""
    problems = list(generate(PRESETS["default"], split="train", count=200 if tiny else 2000, seed=0))
    tokenizer = train_byte_level_bpe(problem_texts(problems), 512 if tiny else 4096)
    add_special_tokens(tokenizer)
    config = shape_from({**SHAPES[name], **(TINY_SHAPE if tiny else {})})
    config.eos_token_id, config.bos_token_id = tokenizer.eos_token_id, None
    config.pad_token_id = tokenizer.pad_token_id
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_data(path: Path, tokenizer: Any, tiny: bool) -> Lengths:
    """Problems of up to five steps, as a file of ours; how long the longest are in tokens."""
    problems = list(generate(PRESETS["default"], split="train", count=200 if tiny else 4000, seed=0))
    path.write_text("".join(json.dumps(problem.to_json()) + "\n" for problem in problems), encoding="utf-8")
    encoded = ProblemProcessor(tokenizer).encode_all(problems)
    return Lengths(
        question=max(len(each.question) for each in encoded) + 1,
        step=max(len(step) for each in encoded for step in each.steps) + 1,
        answer=max(len(each.answer) for each in encoded),
        steps=max(len(each.steps) for each in encoded),
    )


def train(kind: str, arguments: list[str], folder: Path) -> dict[str, Any]:
    """Runs `latentplan sft` or `grpo` in this process and reads what it measured."""
    gc.collect()  # what was trained before, with its gradients
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    failed = app([kind, *arguments, *ALONE, "--report_to", "none", *ON_CPU], standalone_mode=False)
    if failed:
        sys.exit(failed)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "loss" in row]
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
    return {"rows": rows, "peak_gib": peak}


def measured(result: dict[str, Any], first: int, every: int) -> dict[str, Any]:
    """Seconds of a step and tokens a second, over whole groups of `every` steps after step `first`."""
    rows = result["rows"]
    ends = [end for end in range(first + every - 1, len(rows), every) if end >= every]
    seconds, tokens = (
        statistics.fmean(rows[end][name] - rows[end - every][name] for end in ends)
        for name in ("seconds", "num_tokens")
    )
    return {
        "seconds_a_step": round(seconds / every, 4),
        "tokens_a_second": round(tokens / seconds, 1),
        "steps_timed": every * len(ends),
        "peak_gib": None if result["peak_gib"] is None else round(result["peak_gib"], 2),
    }


def estimated(arguments: list[str], lengths: Lengths) -> float:
    """What `latentplan estimate` says of the same settings and lengths, in GiB."""
    plan = read_plan(arguments)
    parts = (plan.model, plan.built_as, plan.run, plan.backbone)
    found = estimate_memory(*parts, decoder=plan.decoder, lengths=lengths)
    return round(found.peak / 2**30, 2)


def supervised(options: argparse.Namespace, model: Path, data: Path, lengths: Lengths) -> dict[str, Any]:
    """The supervised stage at the last stage of the curriculum."""
    run = options.output / "sft"
    stage = "2" if options.tiny else "10"
    settings = ["--config", f"{options.folder}/atp_latent_sft", "--model_name_or_path", str(model)]
    settings += ["--curriculum_stages", stage, "--curriculum_steps", str(options.sft_steps)]
    settings += [*(TINY_FLAGS if options.tiny else []), *options.flags]
    here = ["--dataset_name", str(data), "--output_dir", str(run), "--logging_steps", "1"]
    result = train("sft", [*settings, *here], run)
    warm = min(WARM_UP, options.sft_steps - 2)
    return {**measured(result, warm, 1), "estimated_gib": estimated(settings, lengths)}


def reinforced(options: argparse.Namespace, data: Path, lengths: Lengths) -> dict[str, Any]:
    """The RL stage; the first rollout is not timed, the others with all their minibatches are."""
    run = options.output / "grpo"
    settings = ["--config", f"{options.folder}/atp_latent_rl", "--max_steps", str(options.rl_steps)]
    settings += ["--model_name_or_path", str(options.output / "sft")]
    here = ["--dataset_name", str(data), "--output_dir", str(run), "--logging_steps", "1"]
    result = train("grpo", [*settings, *here], run)
    return {**measured(result, 8, 8), "estimated_gib": estimated(settings, lengths)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", default="llama-3.2-1b", choices=BACKBONES, help="folder of the recipes")
    parser.add_argument("--output", type=Path, default=Path("runs/full_shape"), help="emptied first")
    parser.add_argument("--sft_steps", type=int, default=20)
    parser.add_argument("--rl_steps", type=int, default=16, help="a multiple of 8, at least 16; 0 for none")
    parser.add_argument("--tiny", action="store_true", help="a model of 64 dimensions: is the road whole?")
    options, options.flags = parser.parse_known_args()
    shutil.rmtree(options.output, ignore_errors=True)
    model, data = options.output / "random", options.output / "train.jsonl"
    model.mkdir(parents=True)
    tokenizer = make_model(model, BACKBONES[options.folder], options.tiny)
    lengths = make_data(data, tokenizer, options.tiny)
    results = {"sft": supervised(options, model, data, lengths)}
    if options.rl_steps and f"{options.folder}/atp_latent_rl" in recipe_names():
        results["grpo"] = reinforced(options, data, lengths)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    packages = {name: version(name) for name in ("torch", "transformers", "latentplan")}
    about = {"folder": options.folder, "tiny": options.tiny, "device": device, "versions": packages}
    about["lengths"] = vars(lengths)
    (options.output / "summary.json").write_text(json.dumps({**about, **results}, indent=1) + "\n")
    print(f"\n{options.folder} with random weights on {device}, {packages}")
    print(f"{'':6}{'s/step':>10}{'tokens/s':>12}{'peak GiB':>10}{'estimated':>11}")
    for kind, row in results.items():
        peak = "-" if row["peak_gib"] is None else f"{row['peak_gib']:.1f}"
        numbers = f"{row['seconds_a_step']:>10.3f}{row['tokens_a_second']:>12,.0f}"
        print(f"{kind:6}{numbers}{peak:>10}{row['estimated_gib']:>11.1f}")


if __name__ == "__main__":
    main()
