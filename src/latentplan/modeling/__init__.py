"""The latent reasoner and the step decoder: configurations, heads, passes, saving and loading."""
