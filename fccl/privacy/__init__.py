"""Differential privacy of clients: secrets, clipping and noise, the accountant, and the ledger of what is spent."""
