"""Text to tensors: special tokens, tokenizers trained from scratch, the curriculum, and collation."""
