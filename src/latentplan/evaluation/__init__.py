"""How good a model is: accuracy, tokens, plans, and how sure each number is."""
