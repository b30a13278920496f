"""Requests a second of `latentplan serve`: one at a time, and from many clients at once.

    python benchmarks/serving.py runs/quickstart/atp_latent_rl [--clients 64] [--plan]

Starts a server, and asks it the same greedy questions in turns: one client that waits for each answer, then
many clients that each do so. Both turns must give the same answers. The ratio is taken within each round, so
that a machine that is slower for a while slows down both; CPU seconds are the server's own, and do not depend
on what else the machine does. Clients are plain sockets in this process: a client library would cost more
than the server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

import psutil

from latentplan.problems.minigsm import PRESETS, generate


@dataclass
class Turn:
    """What one turn took, and what was answered."""

    answers: dict[str, str]
    latencies: list[float]
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    @property
    def cpu_milliseconds(self) -> float:
        """Of each request."""
        return 1000 * self.cpu_seconds / len(self.latencies)

    def latency(self, share: float) -> float:
        """The latency in milliseconds below which this share of the requests stays."""
        return 1000 * sorted(self.latencies)[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


async def client(address: tuple[str, int], questions: list[str], plan: bool, turn: Turn) -> None:
    """Takes questions until there are none, on one connection."""
    reader, writer = await asyncio.open_connection(*address)
    while questions:
        question = questions.pop()
        body = json.dumps({"prompt": question, "latentplan": {"plan": plan}}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n"
        started = time.perf_counter()
        writer.write(head.encode() + body)
        received = await reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", received)[1])
        answer = json.loads(await reader.readexactly(length))
        turn.latencies.append(time.perf_counter() - started)
        turn.answers[question] = answer["choices"][0]["text"]
    writer.close()


async def take_turn(
    address: tuple[str, int], process: psutil.Process, questions: list[str], clients: int, plan: bool
) -> Turn:
    """All questions, asked by so many clients."""
    turn, left = Turn({}, [], 0.0, 0.0), list(questions)
    before, started = cpu_seconds(process), time.perf_counter()
    await asyncio.gather(*(client(address, left, plan, turn) for _ in range(clients)))
    turn.seconds, turn.cpu_seconds = time.perf_counter() - started, cpu_seconds(process) - before
    return turn


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def start_server(model: str, threads: int, options: list[str]) -> tuple[subprocess.Popen, tuple[str, int]]:
    command = [sys.executable, "-m", "latentplan", "serve", model, "--port", "0"]
    command += ["--torch_threads", str(threads), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    for line in process.stdout:
        found = re.search(r"http://([\d.]+):(\d+)/v1", line)
        if found:
            return process, (found[1], int(found[2]))
    raise SystemExit("the server did not start")


async def measure(arguments: argparse.Namespace, address: tuple[str, int], process: psutil.Process) -> None:
    problems = generate(PRESETS[arguments.preset], split="test", count=arguments.requests, seed=1)
    questions = list(dict.fromkeys(problem.question for problem in problems))
    few = questions[: arguments.alone]
    await take_turn(address, process, few, 1, arguments.plan)  # whatever is only slow once
    await take_turn(address, process, questions, arguments.clients, arguments.plan)
    print(f"{'clients':>8}{'requests/s':>12}{'median ms':>11}{'99% ms':>9}{'CPU ms/request':>16}")
    ratios, cpu_ratios = [], []
    for _ in range(arguments.rounds):
        alone = await take_turn(address, process, few, 1, arguments.plan)
        many = await take_turn(address, process, questions, arguments.clients, arguments.plan)
        for clients, turn in ((1, alone), (arguments.clients, many)):
            print(
                f"{clients:>8}{turn.rate:>12.1f}{turn.latency(0.5):>11.1f}{turn.latency(0.99):>9.1f}"
                f"{turn.cpu_milliseconds:>16.2f}"
            )
        different = sum(many.answers[question] != answer for question, answer in alone.answers.items())
        if different or len(many.answers) != len(questions):
            raise SystemExit(f"{different} answers differ, {len(many.answers)} of {len(questions)} came")
        ratios.append(many.rate / alone.rate)
        cpu_ratios.append(alone.cpu_milliseconds / many.cpu_milliseconds)
    print(
        f"ratio: {statistics.median(ratios):.1f} in requests a second (rounds: "
        f"{', '.join(f'{ratio:.1f}' for ratio in ratios)}), {statistics.median(cpu_ratios):.1f} in CPU time"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a run or model folder")
    parser.add_argument("--preset", default="quickstart", help="of minigsm, for the questions")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=640, help="of the many clients in a round")
    parser.add_argument("--alone", type=int, default=64, help="requests of the single client in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plan", action="store_true", help="ask for plans")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--options", default="", help="of latentplan serve, as one text")
    arguments = parser.parse_args()
    process, address = start_server(arguments.model, arguments.threads, shlex.split(arguments.options))
    try:
        asyncio.run(measure(arguments, address, psutil.Process(process.pid)))
    finally:
        process.terminate()
        process.wait(60)


if __name__ == "__main__":
    main()
