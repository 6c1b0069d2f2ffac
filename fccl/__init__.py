"""FCCL: federated fine-tuning of GPT-2 with LoRA, aggregated by contribution.

Importing this package imports nothing heavy; see CONTRIBUTING.md for the tour of the code.
"""

__version__ = "0.1.0"
