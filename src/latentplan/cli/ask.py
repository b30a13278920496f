"""`latentplan ask`: one question, its answer, and the plan behind it.

latentplan ask runs/NAME "the dial starts at 7 . it moves on by 3 . it doubles . where is it ?"
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from latentplan.cli.opening import fail, open_model
from latentplan.modeling.loading import LoadedModel
from latentplan.problems.answers import extract_answer
from latentplan.rollout.sampling import Sampling
from latentplan.rollout.solve import Solution, solve


def ask(
    model: Annotated[Path, typer.Argument(help="A run, or a model folder.")],
    question: Annotated[str, typer.Argument(help="The question in words.")],
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.0, help="Of latents, stops and tokens; 0 is greedy.")
    ] = 0.0,
    num_generations: Annotated[
        int, typer.Option("--num_generations", min=1, help="How many answers; needs a temperature.")
    ] = 1,
    max_new_tokens: Annotated[
        int, typer.Option("--max_new_tokens", min=1, help="Text tokens of an answer at most.")
    ] = 128,
    seed: Annotated[int, typer.Option("--seed", help="Of the sampling.")] = 0,
    device: Annotated[
        str | None,
        typer.Option("--device", help="Such as cuda:1 or cpu; the GPU by default if there is one."),
    ] = None,
) -> None:
    """Ask a model one question: its answer, the latent tokens that it used, and its plan."""
    if not question.strip():
        fail("the question is empty")
    if num_generations > 1 and temperature == 0:
        fail(f"{num_generations} greedy answers are all the same: set --temperature above 0")
    loaded = open_model(model, device)
    sampling = Sampling(temperature, temperature, max_new_tokens)
    solutions = solve(loaded, [question], sampling, seed=seed, num_generations=num_generations)[0]
    console = Console(soft_wrap=True, highlight=False)
    for number, solution in enumerate(solutions, start=1):
        if num_generations > 1:
            console.print(Text(f"── {number} of {num_generations}", style="dim"))
        console.print(_shown(solution, loaded))


def _shown(solution: Solution, model: LoadedModel) -> Text:
    text = Text()
    if solution.plan is not None:
        text.append(
            "plan, decoded from the latents\n" if solution.num_latents else "plan, as written\n", "dim"
        )
        width = len(str(len(solution.plan)))
        for number, step in enumerate(solution.plan, start=1):
            text.append(f"  {number:>{width}}  ", "dim").append(f"{step}\n", "cyan")
        if not solution.plan:
            text.append("  no steps\n", "dim")
    answer = extract_answer(solution.completion)
    text.append("answer  ")
    if answer is None:
        marker = model.reasoner.config.answer_marker.strip()
        text.append(f"none behind {marker!r} in {solution.completion!r}\n", "yellow")
    else:
        text.append(f"{answer}\n", "bold green")
    written = solution.num_tokens - solution.num_latents
    text.append(f"tokens  {solution.num_latents} latent + {written} text", "dim")
    return text if solution.finished else text.append(", cut off at the limit", "yellow")
