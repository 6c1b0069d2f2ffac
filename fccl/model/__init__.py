"""The language model with LoRA: loading, encoding, losses, scoring, generation, export."""
