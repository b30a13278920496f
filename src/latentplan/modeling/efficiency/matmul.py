"""Products of activations and weights, by the library that computes them fastest on the processor at hand.

PyTorch gives float32 products to Intel's MKL, which on AMD's processors takes more than twice as long as
oneDNN, a part of PyTorch too. There, oneDNN gets them. `LATENTPLAN_ONEDNN=0` leaves everything to PyTorch,
`LATENTPLAN_ONEDNN=1` gives oneDNN the products on any CPU. What oneDNN computes has first derivatives only.
"""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F

WORTH_IT = 2**20
"""Multiplications below which calling oneDNN takes longer than it saves."""
FEW_ROWS = 4
"""Rows below which it is slower where a weight's rows do not lie together."""


def product(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`inputs` `[..., in]` times the transpose of `weight` `[out, in]`, plus `bias`: `[..., out]`.

    Not for autograd, which `linear_maps.linear` is for.
    """
    if by_onednn(inputs, weight):
        bias = None if bias is None else bias.contiguous()  # it reads beyond the end of an expanded one
        return torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return F.linear(inputs, weight, bias)


def add_product(total: torch.Tensor | None, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """`total` `[m, n]`, changed in place, plus the transpose of `left` `[k, m]` times `right` `[k, n]`."""
    if total is None:
        return product(left.t(), right.t())
    if by_onednn(left.t(), right.t()):
        return total.add_(product(left.t(), right.t()))
    return total.addmm_(left.t(), right)


def by_onednn(inputs: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether `product` asks oneDNN."""
    return (
        inputs.device.type == "cpu"
        and inputs.dtype == weight.dtype == torch.float32
        and inputs.numel() * weight.shape[0] > WORTH_IT
        and (weight.is_contiguous() or inputs.numel() >= FEW_ROWS * weight.shape[1])
        and type(weight) in (torch.Tensor, torch.nn.Parameter)  # no fake, spread or quantised one
        and _onednn_is_faster()
        and not torch.is_autocast_enabled("cpu")
    )


@cache
def _onednn_is_faster() -> bool:
    wanted = os.environ.get("LATENTPLAN_ONEDNN")
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return _made_by_amd() if wanted is None else wanted == "1"


def _made_by_amd() -> bool:
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return "AuthenticAMD" in platform.processor()
