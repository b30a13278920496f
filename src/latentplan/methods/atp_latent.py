"""ATP-Latent, the supervised stage (arXiv:2601.21598, section 3): Gaussian latents as a conditional VAE.

L = L_enc + L_dec + L_stop + β·L_KL, with β = 1e-3 on the mean over dimensions (the paper has β = 1e-3/d on
the sum). The ablations are settings: `latent_head: projected` without the objective `kl` (no VAE),
`stop_head: false` without `stop`, and `objectives` without `step_decoder`.
"""

from __future__ import annotations

from typing import ClassVar

from latentplan.methods.base import Method


class ATPLatent(Method):
    """Gaussian latents, a stop head for variable length, and a step decoder that turns latents into text."""

    name = "atp_latent"
    latent_head = "gaussian"
    stop_head = True
    objectives: ClassVar[dict[str, float]] = {"text": 1.0, "step_decoder": 1.0, "stop": 1.0, "kl": 1e-3}
