"""Log-probabilities over a vocabulary, in one piece and in parts."""

import pytest
import torch

from latentplan.modeling.efficiency import chunked_logits as vocabulary
from latentplan.modeling.efficiency.chunked_logits import (
    at_indices,
    from_indices,
    mask_indices,
    token_log_probs,
    token_log_probs_and_entropy,
)


@pytest.fixture(params=["llama", "gemma2", "cohere", "granite"])
def reasoner(request, make_system):
    return make_system("cot", family=request.param).reasoner


def expected(reasoner, hidden, ids, temperature):
    distribution = torch.distributions.Categorical(logits=reasoner.logits(hidden) / temperature)
    return distribution.log_prob(ids), distribution.entropy()


@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradients_do_not_depend_on_the_parts(reasoner, rows, temperature, monkeypatch):
    size = reasoner.backbone.config.vocab_size
    monkeypatch.setattr(vocabulary, "LOGITS_AT_ONCE", rows * size)
    torch.manual_seed(0)
    hidden, ids = torch.randn(10, 32, requires_grad=True), torch.randint(size, (10,))
    weight = torch.randn(10)
    wanted, entropy = expected(reasoner, hidden, ids, temperature)
    head = reasoner.get_output_embeddings().weight
    gradients = torch.autograd.grad((wanted * weight).sum(), [hidden, head])
    for found, other in (
        (token_log_probs(reasoner, hidden, ids, temperature), None),
        token_log_probs_and_entropy(reasoner, hidden, ids, temperature),
    ):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
        if other is not None:
            torch.testing.assert_close(other, entropy, atol=1e-5, rtol=1e-5)
            assert not other.requires_grad
        again = torch.autograd.grad((found * weight).sum(), [hidden, head])
        torch.testing.assert_close(again, gradients, atol=1e-5, rtol=1e-5)


def test_without_gradients_and_without_tokens(reasoner):
    with torch.no_grad():
        found = token_log_probs(reasoner, torch.zeros(0, 32), torch.zeros(0, dtype=torch.long))
    assert found.shape == (0,)


def test_only_a_part_of_the_logits_is_alive_at_a_time(reasoner, monkeypatch):
    """Forward and backward: the output layer never sees more rows than a part has."""
    monkeypatch.setattr(vocabulary, "LOGITS_AT_ONCE", 2 * reasoner.backbone.config.vocab_size)
    seen = []
    reasoner.get_output_embeddings().register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    hidden = torch.randn(7, 32, requires_grad=True)
    found = token_log_probs(reasoner, hidden, torch.zeros(7, dtype=torch.long))
    assert seen == [2, 2, 2, 1]
    found.sum().backward()
    assert sorted(seen[4:]) == [1, 2, 2, 2]


def test_places_take_out_and_put_back():
    mask = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0]])
    where = mask_indices(mask)
    assert where.tolist() == [0, 2, 7]
    values = torch.arange(9.0).view(3, 3)
    assert at_indices(values, where).tolist() == [0, 2, 7]
    assert at_indices(values.unsqueeze(2).expand(-1, -1, 2), where).tolist() == [[0, 0], [2, 2], [7, 7]]
    assert torch.equal(from_indices(at_indices(values, where), where, mask), values * mask)


def test_a_layer_that_devices_gather_together_runs_once(reasoner, monkeypatch):
    """DeepSpeed ZeRO-3 marks its weights: devices with more tokens would wait for each other for ever."""
    monkeypatch.setattr(vocabulary, "LOGITS_AT_ONCE", 2 * reasoner.backbone.config.vocab_size)
    seen = []
    head = reasoner.get_output_embeddings()
    head.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    head.weight.ds_id = 0
    token_log_probs(reasoner, torch.randn(7, 32, requires_grad=True), torch.zeros(7, dtype=torch.long))
    assert seen == [7]
