"""SIM-CoT (arXiv:2509.20317): Coconut's latents, also supervised by decoding each step from its own."""

from __future__ import annotations

from typing import ClassVar

from latentplan.methods.base import Method


class SimCoT(Method):
    """Coconut with a step decoder; problems with fewer steps than slots leave the later latents undecoded."""

    name = "sim_cot"
    latent_head = "hidden_state"
    objectives: ClassVar[dict[str, float]] = {"text": 1.0, "step_decoder": 1.0}
