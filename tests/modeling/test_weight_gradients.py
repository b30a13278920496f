"""Gradients of weights that are multiplied together at the end are those that autograd adds up."""

import copy
import gc
import pickle
import weakref
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from latentplan.methods.base import methods
from latentplan.modeling.efficiency import linear_layers as weight_gradients
from latentplan.modeling.efficiency.gradient_checkpointing import checkpoint_layers
from latentplan.modeling.efficiency.linear_layers import (
    deferred_weight_gradients,
    has_sharded_weights,
    install,
)
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.engine import generate
from latentplan.training.latent_gradients import LATENT_GRADIENTS

aten = torch.ops.aten
CLOSE = {"atol": 2e-5, "rtol": 1e-4}


@pytest.fixture
def defer(monkeypatch):
    """Chooses whether weights of any size are deferred, or none."""

    def choose(every: bool) -> None:
        monkeypatch.setitem(weight_gradients.WORTH_DEFERRING, "cpu", 0 if every else 2**60)

    return choose


def gradients(module, value):
    module.zero_grad()
    value.backward()
    return {name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None}


def both_ways(defer, module, value):
    found = []
    for every in (False, True):
        defer(every)
        found.append(gradients(module, value()))
    return found


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, **CLOSE)


def test_every_family(each_family, defer, make_system, make_batch, mixed_problems):
    system = make_system("atp_latent", family=each_family)
    batch = make_batch(system, mixed_problems)
    assert_equal(*both_ways(defer, system, lambda: system(**batch)["loss"]))


@pytest.mark.parametrize("method", sorted(methods()))
def test_every_method(method, defer, make_system, make_batch, mixed_problems):
    system = make_system(method)
    batch = make_batch(system, mixed_problems)
    assert_equal(*both_ways(defer, system, lambda: system(**batch)["loss"]))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("rows", [1, 40])
def test_small_parts_tied_weights_and_layers_that_run_again(
    family, tied, recomputed, rows, defer, make_system, make_batch, mixed_problems, monkeypatch
):
    monkeypatch.setattr(weight_gradients, "ROWS_AT_ONCE", rows)
    monkeypatch.setattr("latentplan.modeling.efficiency.chunked_logits.LOGITS_AT_ONCE", 200)
    system = make_system("atp_latent", family=family, backbone={"tie_word_embeddings": tied})
    if recomputed:
        checkpoint_layers(system.reasoner.backbone)
    batch = make_batch(system, mixed_problems)
    assert_equal(*both_ways(defer, system, lambda: system(**batch)["loss"]))


@pytest.mark.parametrize("name", ["score_function", "pathwise"])
def test_scores_of_reinforcement_learning(name, defer, make_system, make_batch, mixed_problems):
    system, sampling = make_system("atp_latent").eval(), Sampling(max_new_tokens=5)
    batch = make_batch(system, mixed_problems)
    places = torch.arange(len(mixed_problems))
    questions = batch["question_ids"], batch["question_mask"]
    trajectories = generate(system.reasoner, *questions, places, seed=0, sampling=sampling, draws=2)

    def score(system):
        found = LATENT_GRADIENTS[name].scores(system.reasoner, trajectories, sampling)
        return found.answers.sum() + found.stops.sum() + found.latents.sum() / 100

    assert_equal(*both_ways(defer, system, lambda: system(compute=score)))


def test_parts_that_are_frozen_get_none(defer, make_system, make_batch, mixed_problems):
    system = make_system("atp_latent")
    system.reasoner.backbone.model.layers[0].requires_grad_(False)
    system.step_decoder.requires_grad_(False)
    batch = make_batch(system, mixed_problems)
    plain, deferred = both_ways(defer, system, lambda: system(**batch)["loss"])
    assert_equal(plain, deferred)
    assert not any(name.startswith("step_decoder") for name in deferred)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_autocast_computes_in_its_dtype(family, defer, make_system, make_batch, mixed_problems):
    system = make_system("atp_latent", family=family)
    batch = make_batch(system, mixed_problems)

    def loss():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return system(**batch)["loss"]

    plain, deferred = both_ways(defer, system, loss)
    defer(True)
    exact = gradients(system, system(**batch)["loss"])
    for name, value in deferred.items():
        assert value.dtype == torch.float32
        scale = exact[name].norm() + 1e-3
        assert (value - exact[name]).norm() < 2 * (plain[name] - exact[name]).norm() + 0.02 * scale, name


class Products(TorchDispatchMode):
    """Counts the products whose result has a shape."""

    def __init__(self):
        super().__init__()
        self.shapes = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function in (aten.mm.default, aten.addmm.default, aten.addmm_.default):
            self.shapes[tuple(result.shape)] += 1
        return result


def test_a_weight_of_many_passes_has_one_product(defer, make_system, make_batch, mixed_problems):
    system = make_system("coconut")
    batch = make_batch(system, mixed_problems)
    up = system.reasoner.backbone.model.layers[0].mlp.up_proj.weight
    counts = []
    for every in (False, True):
        defer(every)
        loss = system(**batch)["loss"]
        with Products() as products:
            loss.backward()
        # Of two layers: what the gradients of up and gate are made of.
        counts.append(sum(products.shapes[shape] for shape in (tuple(up.shape), tuple(up.t().shape))))
    passes = batch["slot_mask"].shape[1] + 1
    assert counts == [3 * 2 * passes, 3 * 2]


def chain(layers, inputs):
    for layer in layers:
        inputs = layer(inputs)
    return inputs.square().sum()


@pytest.fixture
def layers(defer):
    defer(True)
    torch.manual_seed(0)
    layer = nn.Linear(5, 5)
    plain = copy.deepcopy(layer)
    install(layer)
    return layer, plain


def test_gradients_that_are_asked_for_in_parts(layers):
    layer, plain = layers
    inputs = torch.randn(2, 3, 5, requires_grad=True)
    with deferred_weight_gradients(layer):
        value = chain([layer] * 3, inputs)
    expected = chain([plain] * 3, inputs)
    # The shares of a pass that did not ask for the weight are not added to the next.
    of_inputs = torch.autograd.grad(value, [inputs], retain_graph=True)
    of_weight = torch.autograd.grad(value, [layer.weight], retain_graph=True)
    torch.testing.assert_close(of_inputs, torch.autograd.grad(expected, [inputs], retain_graph=True))
    torch.testing.assert_close(of_weight, torch.autograd.grad(expected, [plain.weight], retain_graph=True))
    for loss, module in ((value, layer), (expected, plain)):
        loss.backward(retain_graph=True)
        loss.backward()
        assert module.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad)
    torch.testing.assert_close(layer.bias.grad, plain.bias.grad)


@pytest.mark.parametrize(("trained", "frozen"), [("weight", "bias"), ("bias", "weight")])
def test_a_weight_or_a_bias_alone_is_trained(trained, frozen, layers):
    layer, plain = layers
    inputs = torch.randn(4, 5)
    for module in layers:
        getattr(module, frozen).requires_grad_(False)
    with deferred_weight_gradients(layer):
        chain([layer] * 2, inputs).backward()
    chain([plain] * 2, inputs).backward()
    torch.testing.assert_close(getattr(layer, trained).grad, getattr(plain, trained).grad)
    assert getattr(layer, frozen).grad is None


def test_padding_of_an_embedding_gets_no_gradient(defer):
    defer(True)
    torch.manual_seed(0)
    embedding = nn.Embedding(7, 3, padding_idx=2)
    plain = copy.deepcopy(embedding)
    install(embedding)
    ids = torch.tensor([[0, 2, 5], [5, 5, 1]])
    weights = torch.randn(2, 2, 3, 3)
    with deferred_weight_gradients(embedding):
        sum((embedding(ids) * weight).sum() for weight in weights).backward()
    sum((plain(ids) * weight).sum() for weight in weights).backward()
    torch.testing.assert_close(embedding.weight.grad, plain.weight.grad)
    assert not embedding.weight.grad[2].any()


def test_it_ends_where_the_block_ends(layers):
    layer, _ = layers
    inputs = torch.randn(4, 5)
    with pytest.raises(ZeroDivisionError), deferred_weight_gradients(layer):
        raise ZeroDivisionError
    assert "Linear" not in type(layer(inputs).grad_fn).__name__
    with deferred_weight_gradients(layer):
        assert "Linear" in type(layer(inputs).grad_fn).__name__
        with torch.no_grad():
            assert layer(inputs).grad_fn is None


def test_weights_that_are_spread_are_left_to_their_engine(layers):
    layer, _ = layers
    assert not has_sharded_weights(layer)
    layer.weight.ds_id = 3
    assert has_sharded_weights(layer)
    with deferred_weight_gradients(layer):
        assert "Linear" not in type(layer(torch.randn(4, 5)).grad_fn).__name__


def test_a_second_derivative_is_refused(layers):
    layer, _ = layers
    inputs = torch.randn(4, 5, requires_grad=True)
    with deferred_weight_gradients(layer):
        value = chain([layer] * 2, inputs)
    (first,) = torch.autograd.grad(value, [inputs], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_other_kinds_of_layers_stay(defer):
    class Own(nn.Linear):
        """A layer of another class."""

    own, sparse = Own(3, 3), nn.Embedding(3, 3, sparse=True)
    install(nn.ModuleList([own, sparse]))
    assert "forward" not in own.__dict__
    assert "forward" not in sparse.__dict__


def test_a_copy_of_a_model_uses_its_own_weights():
    layer = nn.Linear(3, 3)
    install(layer)
    other = copy.deepcopy(layer)
    with torch.no_grad():
        layer.weight.zero_()
    inputs = torch.randn(2, 3)
    assert not torch.equal(layer(inputs), other(inputs))
    torch.testing.assert_close(other(inputs), inputs @ other.weight.t() + other.bias)


def test_padding_of_an_embedding_that_is_tied_to_an_output_layer(defer):
    defer(True)
    torch.manual_seed(0)
    embedding, output = nn.Embedding(7, 3, padding_idx=2), nn.Linear(3, 7, bias=False)
    output.weight = embedding.weight
    model = nn.ModuleList([embedding, output])
    plain = copy.deepcopy(model)
    install(model)
    ids = torch.tensor([[0, 2, 5], [5, 5, 1]])
    with deferred_weight_gradients(model):
        (output(embedding(ids)).square().sum() + embedding(ids).sum()).backward()
    (plain[1](plain[0](ids)).square().sum() + plain[0](ids).sum()).backward()
    torch.testing.assert_close(embedding.weight.grad, plain[0].weight.grad)


def test_checkpoints_of_others_are_left_to_autograd(layers):
    """They run their function again outside of the block."""
    layer, plain = layers
    inputs = torch.randn(5, 5, requires_grad=True)

    def twice(module):
        return checkpoint(
            module, checkpoint(module, module(inputs), use_reentrant=False), use_reentrant=False
        ).square()

    with deferred_weight_gradients(layer):
        value = twice(layer).sum()
    value.backward()
    twice(plain).sum().backward()
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad)
    torch.testing.assert_close(layer.bias.grad, plain.bias.grad)


def test_a_backward_pass_within_another_is_refused_and_not_wrong(layers):
    layer, _ = layers
    inputs = torch.randn(4, 5, requires_grad=True)
    with deferred_weight_gradients(layer):
        other = layer(inputs).sum()
        middle = layer(inputs)
        value = layer(middle).sum()
    middle.register_hook(
        lambda gradient: torch.autograd.grad(other, [layer.weight], retain_graph=True) and gradient
    )
    with pytest.raises(RuntimeError, match="backward passes have to follow one another"):
        value.backward()


def test_inputs_without_rows_and_with_one_dimension(layers):
    layer, plain = layers
    for inputs in (torch.randn(0, 5), torch.randn(5)):
        for module in layers:
            module.zero_grad()
        with deferred_weight_gradients(layer):
            chain([layer] * 2, inputs).backward()
        chain([plain] * 2, inputs).backward()
        torch.testing.assert_close(layer.weight.grad, plain.weight.grad)
        torch.testing.assert_close(layer.bias.grad, plain.bias.grad)


def test_weights_that_change_before_the_backward_pass_are_noticed(layers):
    layer, _ = layers
    inputs = torch.randn(4, 5, requires_grad=True)
    with deferred_weight_gradients(layer):
        value = chain([layer] * 2, inputs)
    with torch.no_grad():
        layer.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_dtypes_that_do_not_fit_are_refused_as_by_pytorch(layers):
    layer, _ = layers
    with deferred_weight_gradients(layer.bfloat16()), pytest.raises(RuntimeError, match="dtype"):
        layer(torch.randn(4, 5))


@pytest.mark.parametrize("asks", [True, False])
def test_nothing_is_kept_when_a_graph_is_dropped(asks, defer):
    defer(True)
    layer = nn.Linear(5, 5)
    install(layer)
    inputs = torch.randn(4, 5, requires_grad=True)
    with deferred_weight_gradients(layer):
        middle = layer(layer(inputs))
        value = layer(middle).sum()
    watched = weakref.ref(middle.grad_fn)
    if asks:
        torch.autograd.grad(value, [inputs], retain_graph=True)
    gone = weakref.ref(layer)
    del middle, value
    gc.disable()
    try:
        del layer
        assert gone() is None
        assert watched() is None
    finally:
        gc.enable()


def test_a_layer_whose_forward_was_replaced_stays():
    layer = nn.Linear(3, 3)
    layer.forward = lambda inputs: inputs
    install(layer)
    assert torch.equal(layer(torch.ones(3)), torch.ones(3))


def test_a_model_can_be_pickled():
    layers = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 3))
    install(layers)
    other = pickle.loads(pickle.dumps(layers))
    with torch.no_grad():
        layers[1].weight.zero_()
    assert other[1].forward.layer is other[1]
    assert not torch.equal(other(torch.tensor([1])), layers(torch.tensor([1])))
