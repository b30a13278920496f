"""What is asked and what is right: problems, readers, benchmarks, answers, and the minigsm generator."""
