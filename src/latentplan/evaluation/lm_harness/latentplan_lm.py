"""A latentplan model for lm-evaluation-harness, registered as `latentplan` when this module is imported.

It answers generating tasks; tasks that compare likelihoods of given texts do not fit a model whose reasoning
is no text. The task files in `tasks/` read problems and compare answers through the functions at the end of
this module. Needs lm-eval (the extra `lm-eval`).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from tqdm import tqdm

from latentplan.modeling.loading import load_model
from latentplan.modeling.sampling import Sampling
from latentplan.problems.answers import kind_of
from latentplan.problems.problem import DataError
from latentplan.problems.sources import parse_benchmark_argument
from latentplan.rollout.solve import evaluation_mode, solve

logger = logging.getLogger(__name__)

_KNOWN = {"until", "max_gen_toks", "max_new_tokens", "do_sample", "temperature"}
_DEFAULT_BATCH = 128


@register_model("latentplan")
class LatentplanLM(LM):
    """A trained model in a run or model folder.

    Args:
        pretrained: the folder.
        batch_size: trajectories at a time, which changes no result; "auto" is 128.
        device: such as cuda:0; the CPU where there is no GPU.
        max_new_tokens: text tokens of an answer at most, where a task does not say.
        latent_temperature: scale of σ; as the temperature if absent.
        seed: of the noise, where a task samples.
        max_batch_size: of the harness; not used.
        trust_remote_code: whether code may run that the folder names.

    Raises:
        FileNotFoundError: the folder holds no latentplan model.
        UntrustedCodeError: it names code, and is not trusted.
        ValueError: no folder is named.
    """

    def __init__(
        self,
        pretrained: str = "",
        batch_size: int | str | None = None,
        device: str | None = None,
        max_new_tokens: int = 128,
        latent_temperature: float | None = None,
        seed: int = 0,
        max_batch_size: int | None = None,
        trust_remote_code: bool | str = False,
    ):
        super().__init__()
        if not pretrained:
            raise ValueError("which model? name a run or a model folder: --model_args pretrained=runs/NAME")
        self.model = load_model(pretrained, str(trust_remote_code).lower() == "true")
        self.batch_size = int(str(batch_size)) if str(batch_size).isdigit() else _DEFAULT_BATCH
        self.max_new_tokens = int(max_new_tokens)
        self.latent_temperature = latent_temperature
        self.seed = int(seed)
        target = _device(device)
        for part in (self.model.reasoner, self.model.step_decoder):
            if part is not None:
                part.to(target)  # type: ignore[arg-type]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Returns the completion of each request, in their order, cut before the first text of its `until`.

        The noise of a sampled answer follows from the seed and the request's index in its task.

        Raises:
            ValueError: a request asks for a setting that latentplan does not have, such as `top_p`.
        """
        together: dict[tuple[Any, Sampling], list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            sampling = self._sampling(request.args[1])
            together[request.task_name, sampling].append(index)
        texts = [""] * len(requests)
        with (
            tqdm(total=len(requests), disable=disable_tqdm, desc="latentplan") as bar,
            evaluation_mode(self.model),
        ):
            for (_, sampling), indices in together.items():
                solved = solve(
                    self.model,
                    [requests[index].args[0] for index in indices],
                    sampling,
                    seed=self.seed,
                    batch_size=self.batch_size,
                    on_progress=bar.update,
                )
                for index, (solution,) in zip(indices, solved, strict=True):
                    texts[index] = cut(solution.completion, requests[index].args[1].get("until"))
        for request, text in zip(requests, texts, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return texts

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Raises NotImplementedError: the reasoning is no text."""
        raise NotImplementedError(
            "latentplan models answer tasks that generate; this task compares likelihoods of given texts"
        )

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Raises NotImplementedError: the reasoning is no text."""
        raise NotImplementedError("latentplan models answer tasks that generate, not rolling likelihoods")

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Raises NotImplementedError: the processor lays questions out itself."""
        raise NotImplementedError(
            "a latentplan model that was trained with a chat template applies it itself: "
            "leave out --apply_chat_template"
        )

    def _sampling(self, settings: Mapping[str, Any]) -> Sampling:
        unknown = sorted(set(settings) - _KNOWN)
        if unknown:
            known = ", ".join(sorted(_KNOWN))
            raise ValueError(f"latentplan has no generation setting {', '.join(unknown)}; it has {known}")
        longest = settings.get("max_gen_toks") or settings.get("max_new_tokens") or self.max_new_tokens
        temperature = float(settings.get("temperature") or 0.0)
        if settings.get("do_sample") is False:
            temperature = 0.0
        elif settings.get("do_sample") and "temperature" not in settings:
            temperature = 1.0
        latents = temperature if self.latent_temperature is None else float(self.latent_temperature)
        return Sampling(temperature, latents, int(longest))


def cut(text: str, until: str | Sequence[str] | None) -> str:
    """Returns the text before the first of the `until` texts that it holds; empty ones hold nothing."""
    stops = [until] if isinstance(until, str) else list(until or ())
    ends = [text.find(stop) for stop in stops if stop and stop in text]
    return text[: min(ends)] if ends else text


def _device(name: str | None) -> torch.device:
    if name and name.startswith("cuda") and not torch.cuda.is_available():
        logger.warning("there is no GPU here: %s becomes cpu", name)
        return torch.device("cpu")
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def load(benchmark: str, files: Mapping[str, str] | None = None, **metadata: Any) -> dict[str, Any]:
    """Returns a benchmark's test problems as `{"test": Dataset}` with the columns question, answer and
    answer_kind.

    Args:
        benchmark: its name.
        files: files by benchmark, from `--metadata '{"files": {"svamp": "SVAMP.json"}}'`; the hub otherwise.
        metadata: what else the harness passes, the model's arguments among it.

    Raises:
        DataError: the file cannot be read, or `files` is no mapping of names to files.
    """
    from datasets import Dataset

    if files is not None and not isinstance(files, Mapping):
        raise DataError(f'"files" must be a mapping such as {{"svamp": "SVAMP.json"}}, got {files!r}')
    file = (files or {}).get(benchmark)
    argument = parse_benchmark_argument(benchmark if file is None else f"{benchmark}={file}")
    try:
        found = argument.load()
    except DataError as error:
        if file is not None:
            raise
        hint = f"""--metadata '{{"files": {{"{benchmark}": "FILE"}}}}'"""
        raise DataError(f"{error} (here with {hint})") from error
    rows = [
        {"question": each.question, "answer": each.answer, "answer_kind": each.answer_kind or ""}
        for each in found
    ]
    if not rows:
        raise DataError(f"{file or benchmark!r} holds no problems")
    return {"test": Dataset.from_list(rows)}


def question(row: Mapping[str, str]) -> str:
    """Returns the prompt: the question as it stands, which a template would trim."""
    return row["question"]


def answer(row: Mapping[str, str]) -> str:
    """Returns the correct answer."""
    return row["answer"]


def accuracy(row: Mapping[str, str], completions: Sequence[str]) -> dict[str, float]:
    """Returns whether the marked answer is correct, as `latentplan evaluate` decides it."""
    kind = kind_of(row["answer"], row["answer_kind"])
    return {"accuracy": float(kind.is_correct(completions[0], row["answer"]))}
