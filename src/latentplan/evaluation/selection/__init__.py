"""Several samples of a question, one answer: which, how good, and for how many tokens."""
