"""Matrix multiplications of activations and weights, by the faster of two libraries on a CPU.

PyTorch computes float32 matmuls with Intel's MKL, which on AMD processors takes more than twice as long as
oneDNN, which is also part of PyTorch. On AMD, oneDNN computes them. `LATENTPLAN_ONEDNN=0` turns this off,
`LATENTPLAN_ONEDNN=1` turns it on for any CPU. What oneDNN computes has first derivatives only.
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
"""Rows below which it is slower where the weight is not contiguous."""


def matmul(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Multiplies `inputs` `[..., in]` by the transpose of `weight` `[out, in]` and adds `bias`: `[..., out]`.

    This has no gradients; `linear_layers.linear` has.
    """
    if uses_onednn(inputs, weight):
        bias = None if bias is None else bias.contiguous()  # oneDNN reads beyond the end of an expanded one
        return torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return F.linear(inputs, weight, bias)


def add_matmul(total: torch.Tensor | None, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Adds the transpose of `left` `[k, m]` times `right` `[k, n]` to `total` `[m, n]` in place.

    Returns the result, which is new where `total` is None.
    """
    if total is None:
        return matmul(left.t(), right.t())
    if uses_onednn(left.t(), right.t()):
        return total.add_(matmul(left.t(), right.t()))
    return total.addmm_(left.t(), right)


def uses_onednn(inputs: torch.Tensor, weight: torch.Tensor) -> bool:
    """Says whether oneDNN computes `matmul(inputs, weight)`."""
    return (
        inputs.device.type == "cpu"
        and inputs.dtype == weight.dtype == torch.float32
        and inputs.numel() * weight.shape[0] > WORTH_IT
        and (weight.is_contiguous() or inputs.numel() >= FEW_ROWS * weight.shape[1])
        and type(weight) in (torch.Tensor, torch.nn.Parameter)  # no fake, sharded or quantised one
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
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return "AuthenticAMD" in platform.processor()
