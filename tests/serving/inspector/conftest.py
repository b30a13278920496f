"""A model that has learnt two questions by heart, and one of each other kind, as the inspector sees them."""

from __future__ import annotations

import pytest

from latentplan.serving.inspector.inspected_model import Example, InspectedModel


@pytest.fixture(scope="session")
def learnt_problems(mixed_problems):
    """One step and three, with different answers."""
    short, long = mixed_problems[0], mixed_problems[3]
    assert (len(short.steps), len(long.steps)) == (1, 3)
    assert short.answer != long.answer
    return short, long


@pytest.fixture(scope="session")
def learnt(make_system, as_loaded, overfit, learnt_problems):
    """ATP-Latent that answers the two questions with their labelled plans."""
    system = make_system("atp_latent", initial_log_variance=-4.0)
    assert overfit(system, list(learnt_problems), bound=0.1, steps=300) < 0.1
    examples = tuple(Example(each.question, each.answer, len(each.steps)) for each in learnt_problems)
    return InspectedModel("learnt", as_loaded(system), 11, examples, "SFT")


@pytest.fixture(scope="session")
def make_inspected(make_system, as_loaded):
    """A random model of a method."""

    def build(method: str, **overrides) -> InspectedModel:
        return InspectedModel(method, as_loaded(make_system(method, **overrides)), 11)

    return build
