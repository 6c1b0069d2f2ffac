"""Rounds of a federation, and a run on the disk."""
