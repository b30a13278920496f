"""Memory and seconds from a file of problems to token ids: in memory, streamed, from the cache (Linux).

    python benchmarks/data_memory.py [--rows 50000 200000]

The rows are minigsm's word problems, numbered so that no two are alike. Each measurement is a process of its
own. Memory is what the process holds itself at most (RssAnon) beyond what it held before it read the data;
pages of the files that it maps are not counted, because the system takes them back when it needs them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import threading
import time
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from queue import Queue
from typing import Any

MODES = ("memory", "stream", "cached")


def write_rows(file: Path, count: int) -> None:
    from latentplan.problems.minigsm import PRESETS, generate

    problems = list(generate(PRESETS["default"], split="train", count=20_000, seed=0))
    with file.open("w", encoding="utf-8") as rows:
        for number, problem in enumerate(islice(cycle(problems), count)):
            asked = replace(problem, question=f"({number}) {problem.question}", plans=None)
            rows.write(json.dumps(asked.to_json()) + "\n")


def held() -> float:
    """Megabytes that this process holds itself."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def measure(mode: str, file: Path, cache: Path, results: Any) -> None:
    from latentplan.encoding.processor import ProblemProcessor
    from latentplan.encoding.token_store import encode_problems
    from latentplan.encoding.tokenizers import add_special_tokens, problem_texts, train_byte_level_bpe
    from latentplan.problems import training_set as reading
    from latentplan.problems.reading import read_problems
    from latentplan.problems.training_set import DataArguments, load_training_problems

    tokenizer = train_byte_level_bpe(problem_texts(read_problems(file, limit=5000)))
    add_special_tokens(tokenizer)
    if mode == "memory":
        reading.IN_MEMORY = 10**9
    data = DataArguments(
        dataset_name=[str(file)], dataset_streaming=mode != "memory", dataset_cache_dir=str(cache)
    )
    before, samples, done = held(), Queue[float](), threading.Event()
    samples.put(before)

    def watch() -> None:
        while not done.wait(0.05):
            samples.put(held())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    problems, _ = load_training_problems(data)
    read = time.perf_counter()
    encoded, _ = encode_problems(problems, ProblemProcessor(tokenizer), data)
    end = time.perf_counter()
    done.set()
    watcher.join()
    results.put((len(encoded), read - start, end - read, max(samples.queue) - before))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 200_000], help="problems of a file")
    context = multiprocessing.get_context("spawn")
    print(
        f"{'rows':>9}{'file, MB':>10}  {'mode':<8}{'reading, s':>12}{'tokenising, s':>15}{'memory, MB':>12}"
    )
    for count in parser.parse_args().rows:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "rows.jsonl"
            write_rows(file, count)
            for mode in MODES:
                results = context.SimpleQueue()
                process = context.Process(target=measure, args=(mode, file, Path(folder) / "cache", results))
                process.start()
                process.join()
                rows, reading, tokenising, memory = results.get()
                size = file.stat().st_size / 1e6
                print(f"{rows:>9,}{size:>10.0f}  {mode:<8}{reading:>12.1f}{tokenising:>15.1f}{memory:>12.0f}")


if __name__ == "__main__":
    main()
