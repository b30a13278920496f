"""Products by oneDNN are PyTorch's, with their gradients, up to rounding."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

from latentplan.modeling.efficiency import matmul as products
from latentplan.modeling.efficiency.linear_layers import LinearMap, install, linear
from latentplan.modeling.efficiency.matmul import add_matmul, matmul, uses_onednn

CLOSE = {"atol": 1e-4, "rtol": 1e-4}
has_onednn = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this PyTorch comes without oneDNN"
)


@pytest.fixture
def onednn(monkeypatch):
    monkeypatch.setattr(products, "WORTH_IT", 0)
    monkeypatch.setattr(products, "_onednn_is_faster", lambda: True)


@has_onednn
@pytest.mark.parametrize("shape", [(6,), (3, 2, 6), (1, 6)])
@pytest.mark.parametrize("bias", [False, True])
def test_product(shape, bias, onednn):
    torch.manual_seed(0)
    inputs, weight = torch.randn(shape), torch.randn(5, 6)
    added = torch.randn(5) if bias else None
    assert uses_onednn(inputs, weight)
    torch.testing.assert_close(matmul(inputs, weight, added), F.linear(inputs, weight, added), **CLOSE)


@has_onednn
def test_operands_that_are_views(onednn):
    torch.manual_seed(0)
    hidden, weight = torch.randn(4, 7, 6), torch.randn(6, 5)
    for inputs in (hidden[:, -1], hidden[:, 1:3], hidden.transpose(0, 1)):
        torch.testing.assert_close(matmul(inputs, weight.t()), inputs @ weight, **CLOSE)


@has_onednn
def test_sums_of_products(onednn):
    torch.manual_seed(0)
    left, right = torch.randn(2, 4, 3), torch.randn(2, 4, 5)
    total = None
    for one, other in zip(left, right, strict=True):
        total = add_matmul(total, one, other)
    torch.testing.assert_close(total, torch.einsum("bkm,bkn->mn", left, right), **CLOSE)


@has_onednn
@pytest.mark.parametrize("make", [nn.Linear, lambda size, out: Conv1D(out, size)])
@pytest.mark.parametrize("trained", [("weight", "bias"), ("weight",), ("bias",), ()])
def test_gradients_of_layers(make, trained, onednn):
    torch.manual_seed(0)
    plain = make(6, 5)
    for name, weight in plain.named_parameters():
        weight.requires_grad_(name in trained)
    layer = copy.deepcopy(plain)
    install(layer)
    assert isinstance(layer.forward, LinearMap)
    inputs = torch.randn(3, 4, 6, requires_grad=True)
    others = inputs.detach().clone().requires_grad_()
    layer(inputs).square().sum().backward()
    plain(others).square().sum().backward()
    torch.testing.assert_close(inputs.grad, others.grad, **CLOSE)
    for weight, expected in zip(layer.parameters(), plain.parameters(), strict=True):
        assert (weight.grad is None) == (expected.grad is None)
        if weight.grad is not None:
            torch.testing.assert_close(weight.grad, expected.grad, **CLOSE)


@has_onednn
def test_a_whole_system_trains_to_the_same_gradients(monkeypatch, make_system, make_batch, mixed_problems):
    system = make_system("atp_latent")
    batch = make_batch(system, mixed_problems)
    found = []
    for asked in (False, True):
        monkeypatch.setattr(products, "WORTH_IT", 0)
        monkeypatch.setattr(products, "_onednn_is_faster", lambda asked=asked: asked)
        system.zero_grad()
        system(**batch)["loss"].backward()
        found.append([weight.grad for weight in system.parameters()])
    for one, other in zip(*found, strict=True):
        assert (other - one).norm() <= 2e-5 * one.norm() + 1e-6


def test_only_float32_on_a_cpu_outside_of_autocast(onednn):
    inputs, weight = torch.randn(2, 3), torch.randn(4, 3)
    assert not uses_onednn(inputs.double(), weight.double())
    assert not uses_onednn(inputs.bfloat16(), weight.bfloat16())
    assert not uses_onednn(inputs.to("meta"), weight.to("meta"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not uses_onednn(inputs, weight)
        assert linear(inputs, weight, None).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("asked", "amd", "given"), [("0", True, False), ("1", False, True), (None, True, True)]
)
def test_which_processors_it_serves(asked, amd, given, monkeypatch):
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        given = False
    monkeypatch.setattr(products, "_made_by_amd", lambda: amd)
    if asked is None:
        monkeypatch.delenv("LATENTPLAN_ONEDNN", raising=False)
    else:
        monkeypatch.setenv("LATENTPLAN_ONEDNN", asked)
    assert products._onednn_is_faster.__wrapped__() == given


def test_small_products_stay_with_pytorch(monkeypatch):
    monkeypatch.setattr(products, "_onednn_is_faster", lambda: True)
    assert not uses_onednn(torch.randn(64, 128), torch.randn(128, 128))


@has_onednn
def test_a_bias_that_does_not_lie_in_one_piece(onednn):
    torch.manual_seed(0)
    inputs, weight = torch.randn(8, 6), torch.randn(5, 6)
    for bias in (torch.randn(10)[::2], torch.randn(1).expand(5)):
        torch.testing.assert_close(matmul(inputs, weight, bias), F.linear(inputs, weight, bias), **CLOSE)


def test_few_rows_with_a_transposed_weight_stay_with_pytorch(onednn):
    weight = torch.randn(6, 5).t()
    assert not uses_onednn(torch.randn(3, 6), weight)
    assert uses_onednn(torch.randn(4, 6), weight)
