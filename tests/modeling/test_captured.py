"""Passes on fixed memory, as a GPU's graphs need them, give what plain passes give (without a graph here)."""

import gc
import weakref

import pytest
import torch

from latentplan.modeling.efficiency import cuda_graphs
from latentplan.modeling.sampling import Sampling
from latentplan.rollout import engine
from latentplan.rollout.engine import generate


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "DEVICES", ("cpu",))
    monkeypatch.setenv("LATENTPLAN_CUDA_GRAPHS", "1")


def roll_out(system, batch, answers=1, seed=0):
    return generate(
        system.reasoner.eval(),
        batch["question_ids"],
        batch["question_mask"],
        torch.arange(len(batch["question_ids"])),
        seed=seed,
        sampling=Sampling(temperature=1.5, max_new_tokens=9),
        draws=3,
        answers=answers,
    )


@pytest.fixture
def contexts(monkeypatch):
    """The kinds of context that rollouts used."""
    kinds, real = [], engine.with_cuda_graphs

    def watched(context, columns):
        found = real(context, columns)
        kinds.append(type(found).__name__)
        return found

    monkeypatch.setattr(engine, "with_cuda_graphs", watched)
    return kinds


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "deepseek_v3"])
@pytest.mark.parametrize("answers", [1, 2])
def test_trajectories_are_the_same(
    family, answers, make_system, make_batch, mixed_problems, monkeypatch, contexts, request
):
    system = make_system("atp_latent", family=family)
    batch = make_batch(system, mixed_problems)
    expected = [roll_out(system, batch, answers, seed) for seed in range(3)]
    request.getfixturevalue("as_on_a_gpu")
    for seed, wanted in enumerate(expected):
        found = roll_out(system, batch, answers, seed)
        for name in ("slot_mask", "stops", "answer_ids", "answer_mask"):
            assert torch.equal(getattr(found, name), getattr(wanted, name)), name
        used = wanted.slot_mask.bool()
        torch.testing.assert_close(found.latents[used], wanted.latents[used], atol=1e-4, rtol=1e-4)
    # A size is captured when it comes for the second time.
    assert contexts == ["DecodingState"] * 4 + ["GraphedState"] * 2


def test_weights_may_change_between_rollouts(make_system, make_batch, mixed_problems, as_on_a_gpu, contexts):
    system = make_system("atp_latent")
    batch = make_batch(system, mixed_problems)
    before = [roll_out(system, batch) for _ in range(3)][-1]
    with torch.no_grad():
        for weight in system.reasoner.parameters():
            weight.mul_(1.1)
    after = roll_out(system, batch)
    assert contexts[-1] == "GraphedState"
    cuda_graphs._graphs.clear()
    assert not torch.equal(before.answer_ids, after.answer_ids)
    assert torch.equal(roll_out(system, batch).answer_ids, after.answer_ids)


def test_weights_may_move_between_rollouts(make_system, make_batch, mixed_problems, as_on_a_gpu, contexts):
    """A graph would go on reading the memory that they have left."""
    system = make_system("atp_latent")
    batch = make_batch(system, mixed_problems)
    for _ in range(2):
        roll_out(system, batch)
    system.reasoner.backbone.to(torch.float64)
    moved = roll_out(system, batch)
    assert contexts[-1] == "GraphedState"
    cuda_graphs._graphs.clear()
    assert torch.equal(roll_out(system, batch).answer_ids, moved.answer_ids)


def test_weights_that_are_spread_over_devices_are_not_captured(
    make_system, make_batch, mixed_problems, as_on_a_gpu, contexts
):
    system = make_system("atp_latent")
    batch = make_batch(system, mixed_problems)
    next(system.reasoner.backbone.parameters()).ds_id = 0  # as DeepSpeed ZeRO-3 marks them
    for _ in range(3):
        roll_out(system, batch)
    assert set(contexts) == {"DecodingState"}


def test_a_model_that_nothing_else_needs_goes(make_system, make_batch, mixed_problems, as_on_a_gpu, contexts):
    system = make_system("atp_latent")
    batch = make_batch(system, mixed_problems)
    for _ in range(2):
        roll_out(system, batch)
    assert contexts[-1] == "GraphedState"
    backbone = weakref.ref(system.reasoner.backbone)
    del system
    gc.collect()
    assert backbone() is None


def test_few_sizes_are_kept(make_system, make_batch, mixed_problems, as_on_a_gpu):
    system = make_system("atp_latent")
    for count in (1, 2, 3, 4, 5, 6):
        for _ in range(2):
            roll_out(system, make_batch(system, mixed_problems[:count]))
    kept = cuda_graphs._graphs[system.reasoner.backbone]
    assert [rows for (rows, _), passes in kept.items() if passes is not None] == [9, 12, 15, 18]


@pytest.mark.parametrize("family", ["bloom", "mistral"])
def test_what_cannot_be_captured_is_not(
    family, make_system, make_batch, mixed_problems, as_on_a_gpu, contexts
):
    narrow = {"sliding_window": 8} if family == "mistral" else {}
    system = make_system("atp_latent", family=family, backbone=narrow)
    batch = make_batch(system, mixed_problems)
    for _ in range(3):
        roll_out(system, batch)
    assert set(contexts) == {"DecodingState"}


def test_autocast_is_not_captured(make_system, make_batch, mixed_problems, as_on_a_gpu, contexts):
    system = make_system("atp_latent")
    batch = make_batch(system, mixed_problems)
    for _ in range(3):
        with torch.autocast("cpu", dtype=torch.bfloat16), pytest.warns(UserWarning, match="bfloat16"):
            roll_out(system, batch)
    assert set(contexts) == {"DecodingState"}


def test_it_is_off_by_default(make_system, make_batch, mixed_problems, monkeypatch, contexts):
    monkeypatch.setattr(cuda_graphs, "DEVICES", ("cpu",))
    monkeypatch.delenv("LATENTPLAN_CUDA_GRAPHS", raising=False)
    system = make_system("atp_latent")
    batch = make_batch(system, mixed_problems)
    for _ in range(3):
        roll_out(system, batch)
    assert set(contexts) == {"DecodingState"}
