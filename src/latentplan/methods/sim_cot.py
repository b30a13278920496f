"""SIM-CoT (arXiv:2509.20317): Coconut's latents, each step's also supervised by decoding the step from them."""

from __future__ import annotations

from latentplan.methods.base import Method


class SimCoT(Method):
    """Coconut with a step decoder; problems with fewer steps than slots leave the later latents undecoded."""

    name = "sim_cot"
    latent_head = "hidden_state"
    objectives = {"text": 1.0, "step_decoder": 1.0}
