"""Coconut (arXiv:2412.06769): the last hidden state is the next latent, for a fixed number of latents."""

from __future__ import annotations

from latentplan.methods.base import Method


class Coconut(Method):
    """c·k latents at curriculum stage k for every problem, supervised by the text after them alone."""

    name = "coconut"
    latent_head = "hidden_state"
