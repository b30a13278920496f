"""latentplan: language models that reason in a few continuous latent tokens.

The road through the package: `problems` -> `encoding` -> `modeling` -> `methods` / `rollout` / `rewards` ->
`training` -> `evaluation` -> `serving`, with `cli` and `recipes` on top.
"""

__version__ = "0.1.0"
