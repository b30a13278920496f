"""iCoT's removal of written tokens, and pauses that depend on nothing."""

import math

import pytest
import torch

from latentplan.encoding.processor import IGNORE
from latentplan.methods.icot import ICoT, ICoTSettings
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.sampling import Sampling
from latentplan.modeling.thinking import unroll
from latentplan.rollout.engine import generate

KEYS = range(20_000)


def key_with_offset(offset: int) -> int:
    return next(key for key in KEYS if ICoT().offset(key) == offset)


def words(tokenizer, batch) -> list[str]:
    ids = batch["labels"][0]
    return tokenizer.convert_ids_to_tokens(ids[ids != IGNORE].tolist())


@pytest.mark.parametrize(
    ("stage", "offset", "removed"), [(0, 0, 0), (1, 0, 1), (3, 0, 3), (3, 1, 4), (9, 0, 9), (10, 0, 16)]
)
def test_a_stage_leaves_out_as_many_tokens_and_the_last_all(
    stage, offset, removed, make_system, make_batch, mixed_problems, clock_tokenizer
):
    """Two steps of 7 tokens, each with a line break, then 3 tokens of the answer; K = 10."""
    system = make_system("icot", max_latent_steps=10)
    batch = make_batch(system, mixed_problems[2:3], stage, keys=[key_with_offset(offset)])
    written = make_batch(make_system("cot"), mixed_problems[2:3])
    whole = words(clock_tokenizer, written)
    assert len(whole) == 16 + 3
    assert words(clock_tokenizer, batch) == whole[removed:]


def test_the_smoothing_is_geometric():
    """P(o) = (1 − e^−4)·e^−4o: 0.98168, 0.01798, 0.00033."""
    offsets = [ICoT().offset(key) for key in KEYS]
    for offset in (0, 1):
        expected = (1 - math.exp(-4)) * math.exp(-4 * offset)
        assert offsets.count(offset) / len(offsets) == pytest.approx(expected, abs=0.003)
    assert max(offsets) <= 4
    # With λ = 0.5 a share of 1 − e^−0.5 = 0.393 of the rows loses no further token.
    smoother = ICoT(ICoTSettings(removal_smoothing=0.5))
    assert [smoother.offset(key) for key in KEYS].count(0) / len(KEYS) == pytest.approx(0.393, abs=0.01)


def test_a_problem_shorter_than_the_stage_keeps_its_answer(make_system, make_batch, mixed_problems):
    system = make_system("icot", max_latent_steps=50)
    batch = make_batch(system, mixed_problems[:1], stage=30)
    assert int((batch["labels"] != IGNORE).sum()) == 3


def test_pauses_in_one_pass_are_those_of_one_pass_a_slot(make_system, make_batch, mixed_problems):
    system = make_system("pause")
    batch = make_batch(system, mixed_problems)
    found = system.method.forward(system.reasoner, batch)
    context = system.reasoner.start(batch["question_ids"], batch["question_mask"])
    chain = unroll(system.reasoner, context, batch["slot_mask"])
    assert torch.equal(found.chain.latents, chain.latents)
    assert bool((chain.latents == system.reasoner.latent_head.embedding).all())
    rolled = generate(
        system.reasoner,
        batch["question_ids"],
        batch["question_mask"],
        torch.arange(6),
        seed=0,
        sampling=Sampling(max_new_tokens=4),
    )
    assert torch.equal(rolled.latents, chain.latents)
    assert int(rolled.num_latents.min()) == 6


def test_a_pause_starts_as_small_as_a_token(make_system):
    """Its deviation is the backbone's initializer_range, 0.2 here."""
    reasoner = make_system("pause").reasoner
    fresh = LatentReasoner(reasoner.config)
    assert float(fresh.latent_head.embedding.detach().std()) == pytest.approx(0.2, rel=0.5)
