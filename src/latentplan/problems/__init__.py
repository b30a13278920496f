"""Questions and their correct answers: problems, readers, benchmarks, answers, and the minigsm generator."""
