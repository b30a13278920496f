"""SIM-CoT (arXiv:2509.20317): Coconut's latents, from which a decoder also reconstructs each step."""

from __future__ import annotations

from typing import ClassVar

from latentplan.methods.base import Method


class SimCoT(Method):
    """Coconut with a step decoder. Latents beyond a problem's last step are not decoded."""

    name = "sim_cot"
    latent_head = "hidden_state"
    objectives: ClassVar[dict[str, float]] = {"text": 1.0, "step_decoder": 1.0}
