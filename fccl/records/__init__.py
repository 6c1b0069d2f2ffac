"""The records of a run, as values: rounds, evaluation, comparison, data, journal."""
