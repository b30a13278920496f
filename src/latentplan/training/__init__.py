"""Training on transformers' `Trainer`: the supervised stage, the RL stage, and the run directory."""
