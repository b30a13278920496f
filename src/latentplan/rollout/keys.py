"""Which noise is for what: the last number that is folded into a key (see `modeling.noise`).

The latents of a chain follow from fold(chain key, LATENT), its stop decisions from fold(chain key, STOP), the
tokens of its n-th answer from fold(fold(chain key, n), TOKEN); AGAIN makes further stop decisions of one
chain.
"""

LATENT, STOP, TOKEN, AGAIN = 0, 1, 2, 3
