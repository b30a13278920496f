"""What `latentplan compare` does: which runs there are, how long they train, and what is left to do."""
