"""`examine`: every finding about a model, from its greedy chains and what interventions do to them.

diagnosis = examine(load_model("runs/NAME"), problems, partners, benchmark="minigsm:clock")
diagnosis.finding("silent_failure").verdict
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from latentplan.evaluation.diagnosis.answer_source import reading
from latentplan.evaluation.diagnosis.evaluated_model import EvaluatedModel
from latentplan.evaluation.diagnosis.faithfulness import faithfulness
from latentplan.evaluation.diagnosis.findings import Diagnosis, Finding
from latentplan.evaluation.diagnosis.overthinking import overthinking
from latentplan.evaluation.diagnosis.plan_coverage import plan_coverage
from latentplan.evaluation.diagnosis.posterior_collapse import posterior_collapse
from latentplan.evaluation.diagnosis.reconstruction import reconstruction
from latentplan.evaluation.diagnosis.reward_variance import reward_variance
from latentplan.evaluation.diagnosis.silent_failure import silent_failure
from latentplan.evaluation.diagnosis.stop_calibration import stop_calibration
from latentplan.evaluation.harness import versions
from latentplan.evaluation.results import Estimate
from latentplan.evaluation.statistics import wilson_interval
from latentplan.modeling.loading import LoadedModel
from latentplan.problems.counterfactuals import Counterfactual
from latentplan.problems.fingerprint import question_fingerprint
from latentplan.problems.problem import Problem
from latentplan.rollout.solve import evaluation_mode

FINDINGS: dict[str, Callable[[EvaluatedModel], Finding]] = {
    "silent_failure": silent_failure,
    "faithfulness": faithfulness,
    "reading": reading,
    "reconstruction": reconstruction,
    "plan_coverage": plan_coverage,
    "posterior_collapse": posterior_collapse,
    "stop_calibration": stop_calibration,
    "overthinking": overthinking,
    "reward_variance": reward_variance,
}
"""Every finding by its name, in the order in which they are made and shown."""


def examine(
    model: LoadedModel,
    problems: Sequence[Problem],
    partners: Sequence[Counterfactual | None],
    *,
    benchmark: str = "",
    seed: int = 0,
    max_new_tokens: int = 128,
    batch_size: int = 128,
    num_generations: int = 8,
    run: Path | None = None,
    on_progress: Callable[[str], None] = lambda name: None,
) -> Diagnosis:
    """Finds out everything that there is to know of a model's latents on a set of problems.

    Args:
        model: reasoner, step decoder or None, tokenizer; left in the mode that it is in.
        problems: what to ask.
        partners: for each problem a question that differs in one number, or None.
        benchmark: the set's short name.
        seed: of noise and samples.
        max_new_tokens: of a completion.
        batch_size: trajectories at a time; it changes no finding.
        num_generations: samples of each problem with several valid plans.
        run: the run directory around the model, whose metrics are of its training.
        on_progress: called with the name of each finding before it is made.

    Raises:
        ValueError: there are no problems, or not as many partners.
    """
    if not problems:
        raise ValueError("there are no problems to diagnose with")
    if len(partners) != len(problems):
        raise ValueError(f"{len(problems)} problems need as many partners (or None), not {len(partners)}")
    readable = _readable(model, partners)
    evaluated = EvaluatedModel(
        model, problems, readable, seed, max_new_tokens, batch_size, num_generations, run=run
    )
    started = time.perf_counter()
    findings = []
    with evaluation_mode(model):
        correct = evaluated.correct
        for name, find in FINDINGS.items():
            on_progress(name)
            findings.append(find(evaluated))
    return Diagnosis(
        model=model.reasoner.name_or_path or "",
        method=model.reasoner.config.method,
        benchmark=benchmark,
        data_fingerprint=question_fingerprint(problems),
        num_problems=len(problems),
        seed=seed,
        accuracy=Estimate(*wilson_interval(sum(correct), len(correct))),
        findings=findings,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        device=str(model.reasoner.device),
        seconds=time.perf_counter() - started,
        versions=versions(),
    )


def _readable(model: LoadedModel, partners: Sequence[Counterfactual | None]) -> list[Counterfactual | None]:
    """Leaves out partners with a word that the model does not know, which another number may bring."""
    can_read = model.processor.can_read
    return [each if each is not None and can_read(each.question) else None for each in partners]
