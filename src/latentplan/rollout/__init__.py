"""Batched generation of trajectories: latents, stops and answers, log-probabilities, and decoded plans."""
