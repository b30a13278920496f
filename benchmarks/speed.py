"""How fast: rollouts, answers, training steps, each beside the published way and the hardware's limit.

    python benchmarks/speed.py                                 quickstart's shape and GPT-2's on a CPU,
                                                               GPT-2's and Llama-3.2-1B's on a GPU
    python benchmarks/speed.py --shape quickstart --quick      the same road in a minute
    python benchmarks/speed.py --only rollout answer           some of the parts

Random weights; lengths are fixed (workload.py), so that all variants do the same work. What the published
way computes is compared with ours, token by token and loss by loss. Ratios are
taken in one run, in turn, the best of several; the table comes last, and OUTPUT holds everything as JSON.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from published_way import roll_out_one, supervised_loss
from workload import (
    BENCH_SHAPES,
    Clock,
    Peak,
    Workload,
    arithmetic,
    as_transformers_has_it,
    bandwidth,
    make_workload,
    now,
    seconds,
)

from latentplan.modeling.backbones import body
from latentplan.modeling.efficiency import linear_layers as weight_gradients
from latentplan.modeling.sampling import Sampling
from latentplan.rollout import engine
from latentplan.rollout.engine import cache_bytes, generate, trajectory_keys
from latentplan.rollout.plan_decoding import decode_plans
from latentplan.rollout.solve import question_batch, read_solutions, roll_out
from latentplan.training.latent_gradients import LATENT_GRADIENTS

Row = dict[str, Any]
STEP_TOKENS = 12
"""Tokens that a decoded step has (the random decoder never ends one by itself)."""


class Bench:
    """One shape on one device.

    Attributes:
        heavy: whether everything takes long: a real model on a CPU.
        times: how often each thing is measured.
        slow: trajectories that the published way is measured on.
    """

    def __init__(self, work: Workload, device: torch.device, dtype: torch.dtype, quick: bool):
        self.work, self.device, self.dtype = work, device, dtype
        self.heavy = device.type == "cpu" and work.shape.name != "quickstart"
        self.times = 1 if quick else 3
        self.slow = 2 if quick or self.heavy else 8
        self.sampling = Sampling(max_new_tokens=work.shape.answer_tokens)

    def as_in_the_paper(self) -> Workload:
        """The same backbone with ten steps of two latents (arXiv:2601.21598)."""
        shape = replace(self.work.shape, latents_per_step=2, max_latent_steps=10)
        return make_workload(shape, self.device, self.dtype)

    def questions(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask of some questions."""
        return question_batch(self.work.loaded, [problem.question for problem in self.work.problems[:count]])

    def rollout(self, questions: int, draws: int, sampling: Sampling | None = None) -> Callable[[], Any]:
        """A rollout, ready to be run."""
        ids, mask = self.questions(questions)
        places = torch.arange(questions, device=self.device)
        sampling = sampling or self.sampling
        return lambda: generate(self.work.reasoner, ids, mask, places, seed=0, sampling=sampling, draws=draws)


def published_rollouts(bench: Bench, questions: int, draws: int) -> dict[int, Callable[[], Any]]:
    """Some of the same trajectories the published way, by their place among all."""
    ids, mask = bench.questions(questions)
    keys = trajectory_keys(0, torch.arange(questions, device=bench.device), draws)
    apart = questions * draws // bench.slow

    def one(row: int) -> Callable[[], Any]:
        question = ids[row // draws : row // draws + 1, int((1 - mask[row // draws]).sum()) :]

        def run() -> Any:
            with as_transformers_has_it(bench.work.reasoner):
                return roll_out_one(bench.work.reasoner, question, keys[row : row + 1], bench.sampling)

        return run

    return {row: one(row) for row in range(0, apart * bench.slow, apart)}


def rollouts(bench: Bench) -> list[Row]:
    """64 trajectories against the published way, which has one at a time."""
    questions, draws = 8, 8
    ours = bench.rollout(questions, draws)
    theirs = published_rollouts(bench, questions, draws)
    with Peak(bench.device) as peak:
        ours()
    fast, slow = seconds(bench.device, ours, lambda: [run() for run in theirs.values()], times=bench.times)
    slow *= questions * draws / len(theirs)
    result = {
        "part": "rollout",
        "what": f"{questions} questions x {draws} samples",
        "ours": fast,
        "per_second": questions * draws / fast,
        "published": slow,
        "published_measured_on": len(theirs),
        "ratio": slow / fast,
        "goal": "20 on a CPU, 50 on a GPU",
        "peak_bytes": peak.bytes,
    }
    return [*exactness(bench), result, *groups(bench)]


def exactness(bench: Bench) -> list[Row]:
    """In float32 the published way writes the same tokens under the same noise."""
    if bench.dtype != torch.float32:
        work = make_workload(bench.work.shape, bench.device, torch.float32)
        bench = Bench(work, bench.device, torch.float32, bench.times == 1)
    started = now(bench.device)
    rolled = bench.rollout(8, 8)()
    theirs = published_rollouts(bench, 8, 8)
    equal = sum(run().answer_ids == rolled.answer_ids[row].tolist() for row, run in theirs.items())
    what = f"{equal} of {len(theirs)} trajectories equal in float32"
    if equal < len(theirs):
        print(f"WARNING: only {what}", file=sys.stderr)
    return [{"part": "exact", "what": what, "ours": now(bench.device) - started}]


def graphs(bench: Bench) -> list[Row]:
    """The same rollout with captured passes (on a GPU): equal, and how much faster."""
    if bench.device.type != "cuda":
        return []
    run = bench.rollout(16, 8)

    def with_graphs() -> Any:
        os.environ["LATENTPLAN_CUDA_GRAPHS"] = "1"
        try:
            return run()
        finally:
            os.environ["LATENTPLAN_CUDA_GRAPHS"] = "0"

    with_graphs()  # a size is captured when it comes for the second time
    same = (with_graphs().answer_ids == run().answer_ids).float().mean().item()
    plain, fast = seconds(bench.device, run, with_graphs, times=bench.times)
    what = f"128 trajectories, captured against plain; {same:.1%} of tokens equal"
    return [{"part": "graphs", "what": what, "ours": fast, "plain": plain, "ratio": plain / fast}]


def groups(bench: Bench) -> list[Row]:
    """What a group of 8 costs, in units of one sample of each question."""
    rows = []
    for questions in (1, 16):
        one, group = seconds(
            bench.device, bench.rollout(questions, 1), bench.rollout(questions, 8), times=bench.times
        )
        rows.append(
            {
                "part": "rollout",
                "what": f"group of 8 in units of one sample, {questions} question(s)",
                "ours": group,
                "one_sample": one,
                "ratio": group / one,
                "goal": "below 2.5 on a GPU",
            }
        )
    return rows


def answering(bench: Bench) -> list[Row]:
    """Greedy answers of ATP-Latent and a chain of thought written by transformers' generate."""
    count, shape = 8 if bench.heavy else 64, bench.work.shape
    ids, mask = bench.questions(count)
    ours = bench.rollout(count, 1, Sampling.greedy(shape.answer_tokens))
    backbone = copy.copy(bench.work.reasoner.backbone)
    backbone.generation_config.eos_token_id = None

    @torch.no_grad()
    def written() -> Any:
        with as_transformers_has_it(backbone):
            return backbone.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=False,
                min_new_tokens=shape.cot_tokens,
                max_new_tokens=shape.cot_tokens,
                pad_token_id=0,
            )

    assert written().shape[1] - ids.shape[1] == shape.cot_tokens
    fast, slow = seconds(bench.device, ours, written, times=bench.times)
    latents = bench.work.reasoner.config.num_slots
    return [
        {
            "part": "answer",
            "what": f"{count} questions: {latents} latents + {shape.answer_tokens} tokens, or "
            f"{shape.cot_tokens} tokens by generate",
            "ours": fast,
            "per_second": count / fast,
            "written": slow,
            "ratio": slow / fast,
            "goal": "3",
        }
    ]


def supervised(bench: Bench) -> list[Row]:
    """A supervised step, forward and backward, at each stage; the published way at the deepest.

    Once more at the deepest stage of the paper, K = 10 with two latents a step.
    """
    shape = bench.work.shape
    rows = 4 if bench.heavy or bench.times == 1 else shape.sft_batch
    stages = range(1, shape.max_latent_steps + 1)
    results = [supervised_step(bench, bench.work, stage, rows, stage == stages[-1]) for stage in stages]
    return [*results, supervised_step(bench, bench.as_in_the_paper(), 10, rows, True)]


def supervised_step(bench: Bench, work: Workload, stage: int, rows: int, beside_published: bool) -> Row:
    """One stage of the curriculum."""
    system, batch = work.system, work.batch(stage, rows)

    def ours() -> None:
        system(**batch)["loss"].backward()
        system.zero_grad(set_to_none=True)

    def published() -> None:
        with as_transformers_has_it(system):
            supervised_loss(system, batch).backward()
        system.zero_grad(set_to_none=True)

    slots = batch["slot_mask"].shape[1]
    row: Row = {"part": "sft", "what": f"stage {stage}: {slots} latents, {rows} rows"}
    with Peak(bench.device) as peak:
        ours()
    row["peak_bytes"] = peak.bytes
    if not beside_published:
        (fast,) = seconds(bench.device, ours, times=bench.times)
        return {**row, "ours": fast, "per_second": rows / fast}
    exactness = 1e-4 if bench.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(
        system(**batch)["loss"], supervised_loss(system, batch), rtol=exactness, atol=1e-4
    )

    def added_up() -> None:
        with mock.patch.dict(weight_gradients.WORTH_DEFERRING, dict.fromkeys(("cpu", "cuda"), math.inf)):
            ours()

    fast, slow, added = seconds(bench.device, ours, published, added_up, times=bench.times)
    return {
        **row,
        **({"goal": "3"} if stage == 10 else {}),
        "ours": fast,
        "per_second": rows / fast,
        "published": slow,
        "ratio": slow / fast,
        "gradients_added_up_by_autograd": added,
    }


def reinforced(bench: Bench) -> list[Row]:
    """A step of GRPO on some trajectories: rollout, decoding, scoring with its gradient, update."""
    system, reasoner = bench.work.system, bench.work.reasoner
    questions, draws = (2, 8) if bench.heavy else (8, 8)
    roll = bench.rollout(questions, draws)
    trajectories = roll()
    optimizer = torch.optim.AdamW(reasoner.parameters(), lr=0.0)

    def decode() -> Any:
        return decode_plans(
            system.step_decoder,
            bench.work.loaded.tokenizer,
            trajectories.latents,
            trajectories.slot_mask,
            STEP_TOKENS,
        )

    def score(name: str) -> Callable[[], None]:
        def run() -> None:
            scores = LATENT_GRADIENTS[name].scores(reasoner, trajectories, bench.sampling)
            (scores.answers.sum() + scores.latents.sum() + scores.stops.sum()).backward()

        return run

    names = ("score_function", "pathwise")
    parts = seconds(
        bench.device, roll, decode, *(score(name) for name in names), optimizer.step, times=bench.times
    )
    system.zero_grad(set_to_none=True)
    texts = ["rollout", "decode the plans", *(f"score and gradient, {name}" for name in names), "AdamW"]
    return [
        {"part": "rl", "what": f"{questions * draws} trajectories: {text}", "ours": taken}
        for text, taken in zip(texts, parts, strict=True)
    ]


def evaluation(bench: Bench) -> list[Row]:
    """Greedy answers and their decoded plans, as `latentplan evaluate` makes them: text in, text out."""
    count, loaded = 16 if bench.heavy else 256, bench.work.loaded
    texts = [problem.question for problem in bench.work.problems[:count]]
    sampling = Sampling.greedy(bench.sampling.max_new_tokens)

    def evaluate() -> None:
        for batch in roll_out(loaded, texts, sampling, seed=0):
            rolled = batch.trajectories
            read_solutions(loaded, rolled, with_plans=False)
            decode_plans(loaded.step_decoder, loaded.tokenizer, rolled.latents, rolled.slot_mask, STEP_TOKENS)

    (taken,) = seconds(bench.device, evaluate, times=bench.times)
    what = f"{count} questions with plans"
    return [{"part": "evaluate", "what": what, "ours": taken, "per_second": count / taken}]


def latent_loop(bench: Bench) -> list[Row]:
    """The loop of latents beside its floor: bytes through memory, or products through the cores."""
    rows = 8 if bench.heavy else 128
    reasoner = (bench.work if bench.heavy else bench.as_in_the_paper()).reasoner
    ids, mask = bench.questions(rows)
    keys = trajectory_keys(0, torch.arange(rows, device=bench.device), 1)
    slots = reasoner.config.num_slots

    @torch.no_grad()
    def read() -> Any:
        context = reasoner.start(ids, mask)
        return context, context.read()[:, -1]

    @torch.no_grad()
    def loop() -> None:
        context, hidden = read()
        engine._latents(reasoner, context, hidden, keys, keys, bench.sampling)

    before, both = seconds(bench.device, read, loop, times=max(3, bench.times))
    embedding = reasoner.get_input_embeddings().weight
    # The output layer writes no latents, whether it shares the embeddings' weights or not.
    layers = sum(each.numel() for each in body(reasoner.backbone).parameters()) - embedding.numel()
    head = sum(each.numel() for each in reasoner.latent_head.parameters())
    itemsize = embedding.element_size()
    past = cache_bytes(reasoner.backbone.config, ids.shape[1] + slots // 2, itemsize)
    passes = slots - 1  # the last latent is read with what follows it
    moved = passes * (layers * itemsize + rows * past) + slots * head * 4
    operations = 2 * rows * (passes * layers + slots * head)
    by_memory, by_cores = moved / bandwidth(bench.device), operations / arithmetic(bench.device, bench.dtype)
    floor = max(by_memory, by_cores)
    return [
        {
            "part": "floor",
            "what": f"{slots} latents of {rows} trajectories",
            "ours": both - before,
            "floor_by_memory": by_memory,
            "floor_by_arithmetic": by_cores,
            "ratio": (both - before) / floor,
            "goal": "below 2 on a GPU at Llama-3.2-1B's shape",
        }
    ]


def scaling(bench: Bench) -> list[Row]:
    """Trajectories a second by batch, by group, and by number of latent steps."""
    small = bench.heavy
    results = []
    for questions, draws in (
        ((1, 1), (2, 8), (8, 8)) if small else ((1, 1), (8, 8), (32, 8), (256, 1), (128, 8))
    ):
        (taken,) = seconds(bench.device, bench.rollout(questions, draws), times=bench.times)
        results.append(
            {
                "part": "scaling",
                "what": f"{questions} questions x {draws}",
                "ours": taken,
                "per_second": questions * draws / taken,
            }
        )
    for steps in (2, 5, 10):
        work = make_workload(replace(bench.work.shape, max_latent_steps=steps), bench.device, bench.dtype)
        longer = Bench(work, bench.device, bench.dtype, False)
        longer.times = bench.times
        questions, draws = (1, 8) if small else (8, 8)
        (taken,) = seconds(bench.device, longer.rollout(questions, draws), times=bench.times)
        latents = steps * bench.work.shape.latents_per_step
        results.append(
            {
                "part": "scaling",
                "what": f"{latents} latents, {questions} questions x {draws}",
                "ours": taken,
                "per_second": questions * draws / taken,
            }
        )
    return results


PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "rollout": rollouts,
    "graphs": graphs,
    "answer": answering,
    "sft": supervised,
    "rl": reinforced,
    "evaluate": evaluation,
    "floor": latent_loop,
    "scaling": scaling,
}


def measured(bench: Bench, part: str) -> list[Row]:
    """The rows of a part; one that says what failed, so that the others are not lost."""
    started = time.perf_counter()
    try:
        return PARTS[part](bench)
    except Exception as error:
        traceback.print_exc()
        what = f"FAILED: {type(error).__name__}"
        return [
            {
                "part": part,
                "what": what,
                "ours": time.perf_counter() - started,
                "error": traceback.format_exc(),
            }
        ]


def table(rows: list[Row]) -> str:
    """The rows as text."""
    lines = [f"{'shape':13} {'part':9} {'what':58} {'seconds':>9} {'a second':>9} {'ratio':>7}  goal"]
    for row in rows:
        rate = f"{row['per_second']:.1f}" if "per_second" in row else ""
        ratio = f"{row['ratio']:.1f}" if "ratio" in row else ""
        lines.append(
            f"{row['shape']:13} {row['part']:9} {row['what']:58} {row['ours']:9.4f} {rate:>9} {ratio:>7}"
            f"  {row.get('goal', '')}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", nargs="*", choices=BENCH_SHAPES)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="bfloat16 on a GPU, else float32")
    parser.add_argument("--output", type=Path, default=Path("runs/speed.json"))
    parser.add_argument("--quick", action="store_true", help="each measured once, on small batches")
    parser.add_argument(
        "--cpu_time",
        action="store_true",
        help="count this process's seconds, not the wall's, on one thread: for a machine that others use too",
    )
    options = parser.parse_args()
    if options.cpu_time:
        Clock.read = time.process_time
        torch.set_num_threads(1)
    device = torch.device(options.device)
    on_gpu = device.type == "cuda"
    dtype = getattr(torch, options.dtype or ("bfloat16" if on_gpu else "float32"))
    rows: list[Row] = []
    about = {
        "device": torch.cuda.get_device_name(device) if on_gpu else f"{platform.processor() or 'CPU'}",
        "threads": torch.get_num_threads(),
        "seconds": "of the process" if options.cpu_time else "of the wall",
        "cpus": os.cpu_count(),
        "dtype": str(dtype),
        "versions": {name: version(name) for name in ("torch", "transformers", "latentplan")},
        "command": " ".join(["python", *sys.argv]),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for name in options.shape or (["gpt2", "llama-3.2-1b"] if on_gpu else ["quickstart", "gpt2"]):
        bench = Bench(make_workload(BENCH_SHAPES[name], device, dtype), device, dtype, options.quick)
        for part in options.only:
            print(f"{name}: {part}", file=sys.stderr, flush=True)
            rows += [{"shape": name, **row} for row in measured(bench, part)]
            options.output.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
        del bench
    print(f"\n{about['device']}, {about['threads']} threads, {about['dtype']}, {about['versions']}")
    print(table(rows))
    if failed := [f"{row['shape']}: {row['part']}" for row in rows if "error" in row]:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
