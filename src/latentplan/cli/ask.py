"""`latentplan ask`: one question, its answer, and the plan behind it.

latentplan ask runs/NAME "the dial starts at 7 . it moves on by 3 . it doubles . where is it ?"
"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from latentplan.cli.load_or_exit import check_samples, fail, open_model
from latentplan.cli.options import (
    Device,
    InputRuleName,
    InputRuleSettings,
    LatentTemperature,
    MaxNewTokens,
    ModelFolder,
    NumGenerations,
    Seed,
    Temperature,
    TokensPerLatent,
    TorchThreads,
    TrustRemoteCode,
)
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.sampling import Sampling
from latentplan.problems.answers import extract_answer
from latentplan.rollout.plan_decoding import Plan
from latentplan.rollout.solve import Solution, solve


def ask(
    model: ModelFolder,
    question: Annotated[str, typer.Argument(help="The question in words.")],
    temperature: Temperature = 0.0,
    latent_temperature: LatentTemperature = None,
    num_generations: NumGenerations = 1,
    max_new_tokens: MaxNewTokens = 128,
    tokens_per_latent: TokensPerLatent = None,
    input_rule: InputRuleName = None,
    input_rule_settings: InputRuleSettings = None,
    seed: Seed = 0,
    device: Device = None,
    torch_threads: TorchThreads = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Ask a model one question: its answer, the latent tokens that it used, and its plan."""
    if not question.strip():
        fail("the question is empty")
    latents = temperature if latent_temperature is None else latent_temperature
    sampling = Sampling(temperature, latents, max_new_tokens)
    check_samples(sampling, num_generations)
    loaded = open_model(
        model, device, torch_threads, tokens_per_latent, trust_remote_code, input_rule, input_rule_settings
    )
    try:
        (solutions,) = solve(loaded, [question], sampling, seed=seed, num_generations=num_generations)
    except ValueError as error:
        fail(error)
    console = Console(soft_wrap=True, highlight=False)
    for number, solution in enumerate(solutions, start=1):
        if num_generations > 1:
            console.print(Text(f"── {number} of {num_generations}", style="dim"))
        console.print(_shown(solution, loaded))


def _shown(solution: Solution, model: LoadedModel) -> Text:
    text = Text()
    if solution.plan is not None:
        source = "as written" if model.step_decoder is None else "decoded from the latents"
        text.append(f"plan, {source}\n", "dim").append(_numbered(solution.plan))
    text.append("answer  ")
    answer = extract_answer(solution.completion)
    if answer is None:
        marker = model.reasoner.config.answer_marker.strip()
        text.append(f"none behind {marker!r} in {solution.completion!r}\n", "yellow")
    else:
        text.append(f"{answer}\n", "bold green")
    written = solution.num_tokens - solution.num_latents
    text.append(f"tokens  {solution.num_latents} latent + {written} text", "dim")
    return text if solution.finished else text.append(", cut off at the limit", "yellow")


def _numbered(plan: Plan) -> Text:
    text, width = Text(), len(str(len(plan)))
    for number, step in enumerate(plan, start=1):
        text.append(f"  {number:>{width}}  ", "dim").append(f"{' '.join(step.split())}\n", "cyan")
    return text if plan else Text("  no steps\n", "dim")
