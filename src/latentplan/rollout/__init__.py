"""Batched generation of trajectories: latents, stops and answers, their log-probabilities, and decoded plans."""
