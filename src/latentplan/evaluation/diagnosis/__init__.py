"""What a model's latents are good for: one file for each finding, their form in `findings.py`."""
