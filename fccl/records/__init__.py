"""What is written down about a run, as values: rounds, evaluation, comparison, data, journal."""
