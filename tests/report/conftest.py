"""Run directories as training and evaluation leave them; all numbers are made up."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from latentplan.report import ReportEntry

MODULUS = 11
NUM_PROBLEMS = 200
METHODS = {
    "cot": ("CoT", 0.99, 0.0, 600),
    "no_cot": ("No-CoT", 0.38, 0.0, 800),
    "coconut": ("Coconut", 0.46, 8.0, 1000),
    "atp_latent_sft": ("ATP-Latent SFT", 0.74, 5.0, 1200),
    "atp_latent_rl": ("ATP-Latent RL", 0.85, 5.0, 100),
}
OF_START = "<script>alert('a question')</script> & the dial"


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ReportEntry]]:
    """A parent directory with five finished runs. Shared by all tests: copy it before changing anything."""
    parent = tmp_path_factory.mktemp("runs") / "quickstart"
    return parent, write_runs(parent)


@pytest.fixture
def several(runs, tmp_path: Path) -> list[ReportEntry]:
    """Two runs with gsm8k, gsm-hard and, sampled only, multiarith; one also with svamp."""
    entries = []
    for name in ("cot", "atp_latent_sft"):
        folder = tmp_path / name
        shutil.copytree(runs[0] / name, folder)
        (folder / "evaluation").rename(tmp_path / f"{name}-old")
        old = tmp_path / f"{name}-old"
        for stem, source, benchmark, accuracy in (
            ("gsm-hard", "greedy", "gsm-hard", 0.1),
            ("gsm8k", "greedy", "gsm8k", 0.4),
            ("gsm8k-t1-l1-n1-seed0", "sampled", "gsm8k", 0.3),
            ("multiarith-t1-l1-n1-seed0", "sampled", "multiarith", 0.9),
            *([("svamp", "greedy", "svamp", 0.6)] if name == "cot" else []),
        ):
            result = json.loads((old / f"test-{source}.json").read_text())
            result.update(benchmark=benchmark, accuracy={"estimate": accuracy, "low": 0.05, "high": 0.95})
            (folder / "evaluation").mkdir(exist_ok=True)
            (folder / "evaluation" / f"{stem}.json").write_text(json.dumps(result))
        rows = (old / "test-greedy.jsonl").read_text().splitlines(keepends=True)
        (folder / "evaluation" / "gsm8k.jsonl").write_text("".join(rows[:7]))
        entries.append(ReportEntry(name, name, folder))
    return entries


def write_runs(parent: Path) -> list[ReportEntry]:
    entries = []
    for place, (name, (title, accuracy, latents, steps)) in enumerate(METHODS.items()):
        path = parent / name
        (path / "evaluation").mkdir(parents=True)
        rl = name.endswith("rl")
        dump(path / "run.json", _record(name, place))
        (path / "config.yaml").write_text(yaml.safe_dump(_config(name, parent, rl, steps)), encoding="utf-8")
        lines = _rl_metrics(steps) if rl else _sft_metrics(steps, bool(latents), name.startswith("atp"))
        write_lines(path / "metrics.jsonl", lines)
        predictions = _predictions(accuracy, latents, plans=latents == 5 or name == "cot", seed=place)
        write_lines(path / "evaluation/test-greedy.jsonl", predictions)
        dump(path / "evaluation/test-greedy.json", _evaluation(name, predictions, latents, temperature=0.0))
        dump(path / "evaluation/test-sampled.json", _evaluation(name, predictions[20:], latents, 1.0))
        entries.append(ReportEntry(name, title, path))
    return entries


def dump(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value), encoding="utf-8")


def write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _record(name: str, place: int) -> dict[str, Any]:
    return {
        "name": name,
        "command": f"latentplan {'grpo' if name.endswith('rl') else 'sft'} --config recipes/{name}.yaml",
        "status": "finished",
        "created": f"2030-01-02T03:0{place}:00+00:00",
        "finished": f"2030-01-02T03:1{place}:00+00:00",
        "seconds": 100.0 + 50 * place,
        "versions": {"python": "3.11.0", "torch": "2.11.0", "transformers": "5.17.0", "latentplan": "0.1.0"},
        "seed": 0,
        "data": {"fingerprint": "0123456789abcdef", "num_problems": 50_000, "modulus": MODULUS},
        "device": "cpu, 2 threads",
        "method": name.rsplit("_", 1)[0] if name.startswith("atp") else name,
        "num_parameters": 340_000 + 1000 * place,
        "tokens_trained": 1_000_000 * (place + 1),
    }


def _config(name: str, parent: Path, rl: bool, steps: int) -> dict[str, Any]:
    shared = {
        "output_dir": str(parent / name),
        "dataset_name": ["minigsm"],
        "dataset_config": "clock",
        "dataset_size": 50_000,
        "per_device_train_batch_size": 64,
        "seed": 0,
        "adam_beta2": 0.98,
    }
    if rl:
        start = str(parent / "atp_latent_sft" / "model")
        rewards = ["accuracy", "format", "coherence_strict_if_correct"]
        return {
            **shared,
            "model_name_or_path": start,
            "learning_rate": 3e-4,
            "max_steps": steps,
            "objective": "grpo",
            "latent_gradient": "pathwise",
            "reward_funcs": rewards,
            "reward_weights": [1.0, 0.5, 0.1],
            "num_generations": 8,
        }
    backbone = {"model_type": "llama", "hidden_size": 128, "num_hidden_layers": 2}
    return {**shared, "method": name, "learning_rate": 0.002, "max_steps": -1, "backbone_config": backbone}


def _sft_metrics(steps: int, latent: bool, decoder: bool) -> list[dict[str, Any]]:
    chance = random.Random(steps)
    rows = []
    for step in range(20, steps + 1, 20):
        stage = min(4, 1 + 5 * step // steps) if latent else 0
        since = step - steps * (stage - 1) / 5 if latent else step
        noise = math.exp(chance.gauss(0, 0.08))
        row = {
            "step": step,
            "stage": stage,
            "learning_rate": 0.002,
            "grad_norm": 1.0 * noise,
            "seconds": step / 4,
        }
        row["loss/text"] = (0.01 + 2 * math.exp(-since / 80) / (1 + stage)) * noise
        if decoder:
            row["loss/step_decoder"] = (0.02 + 3 * math.exp(-since / 60) / stage) * noise
            row["loss/stop"] = 0.001 + 0.5 * math.exp(-since / 50)
            row["loss/kl"] = 3 + math.log1p(step) / 10
        row["loss"] = sum(value for key, value in row.items() if key.startswith("loss/"))
        rows.append(row)
    return rows


def _rl_metrics(steps: int) -> list[dict[str, Any]]:
    chance = random.Random(7)
    rows = []
    for step in range(1, steps + 1):
        accuracy = 0.56 + 0.14 * (1 - math.exp(-step / 30)) + chance.gauss(0, 0.02)
        coherence = accuracy * 0.95 + chance.gauss(0, 0.01)
        parts = {"accuracy": accuracy, "format": 0.99, "coherence_strict_if_correct": coherence}
        rows.append(
            {
                "step": step,
                "loss": chance.gauss(0, 0.01),
                "learning_rate": 3e-4,
                "grad_norm": 0.3 + abs(chance.gauss(0, 0.05)),
                "seconds": step * 3.0,
                "reward": accuracy + 0.5 * 0.99 + 0.1 * coherence,
                "reward_std": 0.4 - accuracy / 5,
                **{f"rewards/{name}/mean": value for name, value in parts.items()},
                "frac_reward_zero_std": 0.3 + accuracy / 4,
                "completions/mean_length": 3.0 + chance.gauss(0, 0.01),
                "entropy": 0.5 * math.exp(-step / 90),
                "kl": 0.001 * step,
                "clip_ratio/region_mean": abs(chance.gauss(0.02, 0.01)),
                "latents/mean_length": 5.0 + chance.gauss(0, 0.05),
                "latents/sigma": 0.14,
            }
        )
    return rows


def _predictions(accuracy: float, latents: float, plans: bool, seed: int) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    return [_prediction(index, accuracy, latents, plans, chance) for index in range(NUM_PROBLEMS)]


def _prediction(
    index: int, accuracy: float, latents: float, plans: bool, chance: random.Random
) -> dict[str, Any]:
    problem = random.Random(1000 + index)
    start, length = problem.randrange(11), 1 + index % 4
    told = [f"{OF_START if index == 3 else 'the dial'} starts at {start} ."]
    steps, value = [], start
    for _ in range(length):
        operator, number, phrase = problem.choice(
            [("+", 3, "it moves on by 3 ."), ("-", 2, "it moves back by 2 ."), ("*", 2, "then double it .")]
        )
        told.append(phrase)
        result = {"+": value + number, "-": value - number, "*": value * number}[operator] % MODULUS
        steps.append(f"<<{value}{operator}{number}={result}>>")
        value = result
    correct = chance.random() < (accuracy if length > 1 else max(accuracy, 0.97))
    wrong = (value + chance.randrange(1, 11)) % MODULUS
    plan = list(steps)
    if not correct:
        kind = chance.randrange(3)
        plan[-1] = (f"{plan[-1].split('=')[0]}={wrong}>>", "<<1+1=2>>", "<<4+")[kind]
    answer = str(value if correct else wrong)
    return {
        "index": index,
        "sample": 0,
        "question": " ".join([*told, "where is it ?"]),
        "reference": str(value),
        "answer": answer,
        "correct": correct,
        "completion": f"### {answer}",
        "plan": plan if plans else None,
        "num_latents": int(min(latents, 2 * length)),
        "num_tokens": int(min(latents, 2 * length)) + 3,
        "finished": True,
        "steps": steps,
    }


def _evaluation(name: str, rows: list[dict[str, Any]], latents: float, temperature: float) -> dict[str, Any]:
    share = sum(row["correct"] for row in rows) / len(rows)
    by_steps = {}
    for steps in (1, 2, 3, 4):
        group = [row["correct"] for row in rows if len(row["steps"]) == steps]
        coherence = sum(group) / len(group) * 0.95 if latents == 5 else None
        by_steps[str(steps)] = {
            "num_problems": len(group),
            "accuracy": sum(group) / len(group),
            "tokens": 3.0 + steps,
            "coherence": coherence,
        }
    decoded = latents == 5
    use = {"intact": share, "zero": 0.1, "noise": 0.09, "other_question": 0.11} if latents else None
    if name == "coconut":
        use = {"intact": share, "zero": share - 0.01, "noise": share - 0.02, "other_question": share - 0.03}
    reconstruction = {"teacher_exact": 0.97, "teacher_result": 0.98, "free_exact": 0.9, "free_result": 0.92}
    if name.endswith("rl"):
        reconstruction["teacher_exact"] = 0.84
    weak = decoded and reconstruction["teacher_exact"] < 0.9
    return {
        "format_version": 1,
        "method": name,
        "benchmark": "minigsm-clock",
        "num_problems": len(rows),
        "sampling": {"temperature": temperature, "latent_temperature": temperature, "max_new_tokens": 64},
        "accuracy": {"estimate": share, "low": max(0.0, share - 0.06), "high": min(1.0, share + 0.05)},
        "tokens": {
            "mean": latents + 3 if latents else 20.5,
            "latents": latents,
            "text": 3.0 if latents else 20.5,
        },
        "coherence": {"strict": 0.875, "paper": 0.925} if decoded else None,
        "validity": 0.945 if decoded else None,
        "grounding": 0.955 if decoded else None,
        "plan_score": 0.815 if decoded else None,
        "reconstruction": reconstruction if decoded else None,
        "latent_use": use,
        "stop": {"exact": 0.985, "mean_predicted": 2.5, "mean_needed": 2.5} if decoded else None,
        "by_steps": by_steps,
        "seconds": 2.5,
        "warnings": ["teacher-encoded reconstruction is 84.0%"] if weak else [],
    }
