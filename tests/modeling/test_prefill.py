"""Questions read in parts, and not to the end of the last layer, are the questions read in one pass."""

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentplan.modeling.decoding_state import DecodingState
from latentplan.modeling.efficiency import prefill as prefilling
from latentplan.modeling.efficiency.prefill import by_length, prefill
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.engine import generate

CLOSE = {"atol": 1e-4, "rtol": 1e-3}
LENGTHS = [3, 9, 1, 8, 4, 9, 3]
NEVER = 10**9


@pytest.fixture
def costs(monkeypatch):
    """Sets what a pass over questions and one over a column cost."""

    def put(pass_costs, token_costs):
        monkeypatch.setattr(prefilling, "PASS_COSTS", {"cpu": pass_costs})
        monkeypatch.setattr(prefilling, "TOKEN_COSTS", {"cpu": token_costs})

    return put


@pytest.fixture
def passes(monkeypatch):
    """The sizes of all passes, those that were left too."""
    sizes, read = [], DecodingState.read

    def watched(self):
        sizes.append(tuple(self.pending_mask.shape))
        return read(self)

    monkeypatch.setattr(DecodingState, "read", watched)
    return sizes


def questions(backbone, lengths=LENGTHS):
    """Embeddings and mask of left-padded rows."""
    width = max(lengths)
    ids = torch.randint(5, 20, (len(lengths), width), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[0] * (width - length) + [1] * length for length in lengths])
    return backbone.get_input_embeddings()(ids), mask


@torch.no_grad()
def read_and_go_on(backbone):
    """The last hidden states of the questions, of a token after them, and what the context then holds."""
    embeds, mask = questions(backbone)
    context = DecodingState(backbone, embeds, mask)
    found = [prefill(context)]
    assert context.pending.shape[1] == 0
    context.append(embeds[:, -1:], torch.ones_like(mask[:, :1]))
    found.append(context.read()[:, -1])
    return found, context


def assert_as_in_one_pass(backbone, costs):
    costs(NEVER, NEVER)
    expected, whole = read_and_go_on(backbone)
    for pass_costs, token_costs in ((1, NEVER), (NEVER, 0), (1, 0)):
        costs(pass_costs, token_costs)
        found, context = read_and_go_on(backbone)
        torch.testing.assert_close(found, expected, **CLOSE)
        assert torch.equal(context.mask, whole.mask)
        assert torch.equal(context.length, whole.length)
        assert context.cache.get_seq_length() == whole.cache.get_seq_length()


def test_every_family_reads_the_same(each_family, make_backbone, costs):
    assert_as_in_one_pass(make_backbone(each_family, initializer_range=0.1).eval(), costs)


def test_windows_see_the_same(windowed_family, make_backbone, costs):
    family, settings = windowed_family
    assert_as_in_one_pass(make_backbone(family, initializer_range=0.1, **settings).eval(), costs)


def test_parts_are_read_without_each_other_s_padding(make_backbone, costs, passes):
    backbone = make_backbone("llama").eval()
    costs(0, NEVER)
    read_and_go_on(backbone)
    assert passes == [(1, 2), (2, 3), (1, 4), (1, 8), (2, 9), (7, 1)]
    passes.clear()
    costs(9, NEVER)
    read_and_go_on(backbone)
    assert passes == [(4, 4), (3, 9), (7, 1)]


def test_columns_before_the_last_leave_the_last_layer(make_backbone, costs, passes, monkeypatch):
    backbone = make_backbone("llama").eval()
    seen = {}
    for number, layer in enumerate(backbone.model.layers):

        def watched(hidden, forward=layer.mlp.forward, number=number):
            seen.setdefault(number, []).append(tuple(hidden.shape[:2]))
            return forward(hidden)

        monkeypatch.setattr(layer.mlp, "forward", watched)
    costs(NEVER, 0)
    read_and_go_on(backbone)
    assert passes == [(7, 8), (7, 1), (7, 1)]
    assert seen == {0: [(7, 8), (7, 1), (7, 1)], 1: [(7, 1), (7, 1)]}


def test_it_is_one_pass_where_little_is_saved(make_backbone, passes):
    read_and_go_on(make_backbone("llama").eval())
    assert passes == [(7, 9), (7, 1)]


def test_a_module_that_is_watched_is_not_left(make_backbone, costs, passes):
    backbone = make_backbone("llama").eval()
    seen = []
    backbone.model.layers[-1].register_forward_hook(lambda *given: seen.append(given[2].shape[1]))
    costs(NEVER, 0)
    read_and_go_on(backbone)
    assert seen == [9, 1]
    assert passes == [(7, 9), (7, 1)]


def test_gradients_are_kept(make_backbone, costs, passes):
    backbone = make_backbone("llama").eval()
    costs(1, 0)
    embeds, mask = questions(backbone)
    prefill(DecodingState(backbone, embeds, mask)).sum().backward()
    assert passes == [(7, 9)]
    assert bool(backbone.model.layers[0].mlp.up_proj.weight.grad.any())


@torch.no_grad()
def test_other_layers_of_the_cache_are_read_in_one_pass(make_backbone, costs, passes):
    backbone = make_backbone("llama").eval()
    costs(1, 0)
    context = DecodingState(backbone, *questions(backbone))
    context.cache.layers[0] = type("Other", (type(context.cache.layers[0]),), {})()
    prefill(context)
    assert passes == [(7, 9)]


@pytest.mark.parametrize("method", ["atp_latent", "coconut", "cot"])
def test_trajectories_are_the_same(method, make_system, make_batch, mixed_problems, costs):
    system = make_system(method)
    batch = make_batch(system, mixed_problems)

    def rolled(sampling):
        return generate(
            system.reasoner.eval(),
            batch["question_ids"],
            batch["question_mask"],
            torch.arange(6),
            seed=2,
            sampling=sampling,
            draws=4,
            answers=2,
        )

    for sampling in (Sampling(max_new_tokens=8), Sampling.greedy(8)):
        costs(NEVER, NEVER)
        expected = rolled(sampling)
        costs(1, 0)
        found = rolled(sampling)
        for name in ("chain_keys", "slot_mask", "stop_mask", "stops", "answer_ids", "answer_mask"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name
        used = expected.slot_mask.bool()
        torch.testing.assert_close(found.latents[used], expected.latents[used], **CLOSE)
        torch.testing.assert_close(found.answer_log_probs, expected.answer_log_probs, **CLOSE)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=7), st.integers(0, 20))
def test_no_other_parts_take_less(lengths, cost):
    """Against all ways to cut the sorted rows."""

    def taken(parts):
        return sum(cost + len(part) * max(part) for part in parts)

    parts = by_length(lengths, cost)
    assert sorted(place for part in parts for place in part) == list(range(len(lengths)))
    order, count = sorted(lengths), len(lengths)
    least = min(
        taken([order[start:end] for start, end in zip((0, *cuts), (*cuts, count), strict=True)])
        for some in range(count)
        for cuts in combinations(range(1, count), some)
    )
    assert taken([[lengths[place] for place in part] for part in parts]) == least
