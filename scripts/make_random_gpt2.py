"""A randomly initialised GPT-2 of the real shape in a local folder: for trying the system at full size where no weights
are to be had.

    python scripts/make_random_gpt2.py FOLDER

12 layers, width 768, 12 heads, 1,024 positions, vocabulary 50,257: 124 million parameters, the ids of the built-in
tokenizer.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from fccl.model.base_model import base_path
from fccl.presets import BUILTIN_MODEL


def main(folder: str) -> None:
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base_path(BUILTIN_MODEL), model_max_length=1024)
    end = tokenizer.eos_token_id
    model = GPT2LMHeadModel(GPT2Config(bos_token_id=end, eos_token_id=end))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    print(f"{folder}: {model.num_parameters():,} parameters")


if __name__ == "__main__":
    main(sys.argv[1])
