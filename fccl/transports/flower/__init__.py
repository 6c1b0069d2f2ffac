"""Flower as the engine for many machines: the files of the exchange directory travel as Flower messages."""
