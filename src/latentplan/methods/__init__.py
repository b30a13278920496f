"""The methods, one file each: what is latent, how many latents there are, and what supervises them."""

from latentplan.methods.base import Method
from latentplan.methods.registry import METHODS, get_method

__all__ = ["METHODS", "Method", "get_method"]
