"""What every other part may use: it knows nothing of problems, models or runs."""
