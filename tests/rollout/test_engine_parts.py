"""Smaller batches, split requests and rare looks change no trajectory."""

import pytest
import torch

from latentplan.modeling.decoding_state import DecodingState
from latentplan.modeling.efficiency import batch_compaction as active_rows
from latentplan.modeling.sampling import Sampling
from latentplan.rollout import engine
from latentplan.rollout.engine import cache_bytes, generate, pieces

MANY = {"draws": 12, "answers": 3, "sampling": Sampling(temperature=1.5, max_new_tokens=12)}


def roll_out(system, batch, **settings):
    rows = len(batch["question_ids"])
    return generate(
        system.reasoner.eval(),
        batch["question_ids"],
        batch["question_mask"],
        torch.arange(rows),
        seed=5,
        **{**MANY, **settings},
    )


def assert_same(left, right):
    """Equal where anything is in use."""
    used = left.slot_mask.bool()
    for name in ("slot_mask", "stop_mask", "stops", "answer_ids", "answer_mask", "finished", "chain_keys"):
        assert torch.equal(getattr(left, name), getattr(right, name)), name
    torch.testing.assert_close(left.latents[used], right.latents[used], atol=1e-4, rtol=1e-4)
    for name in ("latent_log_probs", "stop_log_probs", "answer_log_probs"):
        torch.testing.assert_close(getattr(left, name), getattr(right, name), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_rows_that_have_ended_leave_the_batch(family, make_system, make_batch, mixed_problems, monkeypatch):
    system = make_system("atp_latent", family=family)
    batch = make_batch(system, mixed_problems)
    sizes = []
    selected = DecodingState.selected

    def watched(self, rows):
        sizes.append((len(self.mask), len(rows)))
        return selected(self, rows)

    monkeypatch.setattr(DecodingState, "selected", watched)
    smaller = roll_out(system, batch)
    assert len(sizes) >= 2
    assert all(after <= before // 2 for before, after in sizes)
    monkeypatch.setattr(active_rows, "MIN_ROWS", 10**9)
    sizes.clear()
    whole = roll_out(system, batch)
    assert sizes == []
    assert_same(smaller, whole)


@pytest.mark.parametrize("method", ["cot", "coconut", "atp_latent"])
def test_looking_rarely_changes_nothing(method, make_system, make_batch, mixed_problems, monkeypatch):
    """On a GPU the loops ask only now and then how many rows go on."""
    system = make_system(method)
    batch = make_batch(system, mixed_problems)
    often = roll_out(system, batch)
    monkeypatch.setattr(active_rows, "CHECK_EVERY", {"cpu": 4})
    assert_same(often, roll_out(system, batch))


@pytest.mark.parametrize("chains", [7, 30])
def test_a_request_larger_than_memory_is_split(chains, make_system, make_batch, mixed_problems, monkeypatch):
    system = make_system("atp_latent")
    batch = make_batch(system, mixed_problems)
    whole = roll_out(system, batch)
    one = 3 * engine._bytes(system.reasoner, batch["question_ids"].shape[1], MANY["sampling"])
    rows = []
    in_one_batch = engine._roll_out

    def watched(model, ids, mask, keys, *rest):
        rows.append(keys.numel())
        return in_one_batch(model, ids, mask, keys, *rest)

    monkeypatch.setattr(engine, "_roll_out", watched)
    assert_same(whole, roll_out(system, batch, memory=chains * one))
    assert max(rows) <= chains
    assert sum(rows) == 12 * len(mixed_problems)


def test_what_does_not_fit_after_all_is_tried_in_halves(make_system, make_batch, mixed_problems, monkeypatch):
    system = make_system("atp_latent")
    batch = make_batch(system, mixed_problems)
    whole, in_one_batch, tried = roll_out(system, batch), engine._roll_out, []

    def small_device(model, ids, mask, keys, *rest):
        tried.append(keys.numel())
        if keys.numel() > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return in_one_batch(model, ids, mask, keys, *rest)

    monkeypatch.setattr(engine, "_roll_out", small_device)
    assert_same(whole, roll_out(system, batch))
    assert tried[:3] == [72, 36, 12]  # 18 chains hold one whole group of 12
    monkeypatch.setattr(
        engine,
        "_roll_out",
        lambda *given: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory")),
    )
    with pytest.raises(torch.OutOfMemoryError):
        roll_out(system, batch)


def test_pieces_cover_every_chain_once_and_in_order():
    for questions in range(1, 6):
        for draws in range(1, 6):
            for at_once in range(30):
                chains = [
                    question * draws + draw
                    for some, those in pieces(questions, draws, at_once)
                    for question in range(questions)[some]
                    for draw in range(draws)[those]
                ]
                assert chains == list(range(questions * draws))


def test_cache_bytes_are_those_of_a_real_cache(make_system, make_batch, mixed_problems):
    reasoner = make_system("cot").reasoner
    batch = make_batch(make_system("cot"), mixed_problems)
    context = reasoner.start(batch["question_ids"], batch["question_mask"])
    context.read()
    rows, columns = batch["question_ids"].shape
    held = sum(
        part.numel() * part.element_size()
        for layer in context.cache.layers
        for part in (layer.keys, layer.values)
    )
    assert rows * cache_bytes(reasoner.backbone.config, columns, 4) == held
