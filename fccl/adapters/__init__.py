"""Adapters: the values that travel between server and clients, and their files."""
