"""What a latent model thinks, on a page: asking, sampling and intervening, as functions and as routes."""
