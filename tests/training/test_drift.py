"""How far latents have moved: nothing at first, and as many σ as their means are shifted by."""

import pytest
import torch

from latentplan.training.rl_diagnostics import Drift


def test_a_shift_of_the_means_is_counted_in_sigmas(make_system, as_loaded, mixed_problems, tmp_path):
    loaded = as_loaded(make_system("atp_latent", initial_log_variance=-2.0))
    drift = Drift(tmp_path / "latents.safetensors", mixed_problems[:3])
    assert drift.measure(loaded) is None
    drift.start(loaded, writes=False)
    assert drift.measure(loaded) is None
    drift.start(loaded, writes=True)
    assert drift.measure(loaded) == pytest.approx(0, abs=1e-4)
    head = loaded.reasoner.latent_head
    with torch.no_grad():
        head.log_variance.weight.zero_()
    drift.start(loaded, writes=True)
    with torch.no_grad():
        head.mean.bias += 0.5
    # σ = e⁻¹ everywhere, and every dimension has moved by 0.5.
    assert drift.measure(loaded) == pytest.approx(0.5 * 2.71828, rel=1e-3)
    again = Drift(tmp_path / "latents.safetensors", mixed_problems[:3])
    assert again.measure(loaded) == pytest.approx(0.5 * 2.71828, rel=1e-3)


def test_points_have_no_sigma(make_system, as_loaded, mixed_problems, tmp_path):
    loaded = as_loaded(make_system("coconut"))
    drift = Drift(tmp_path / "latents.safetensors", mixed_problems[:3])
    drift.start(loaded, writes=True)
    assert drift.measure(loaded) is None
