"""Which noise is for what: the last number that is folded into a key (see `modeling.noise`).

The latents of a chain follow from fold(chain key, LATENT), its stop decisions from fold(chain key, STOP), the
tokens of its n-th answer from fold(fold(chain key, n), TOKEN), those of its drawn plan from
fold(chain key, PLAN); AGAIN makes further stop decisions of one chain.
"""

LATENT, STOP, TOKEN, AGAIN, PLAN = range(5)
