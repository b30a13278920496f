"""Coconut (arXiv:2412.06769): the last hidden state is the next latent, a fixed number of times."""

from __future__ import annotations

from latentplan.methods.base import Method


class Coconut(Method):
    """c·k latents at stage k for every problem; supervised only by the text after them."""

    name = "coconut"
    latent_head = "hidden_state"
