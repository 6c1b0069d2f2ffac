"""Train the built-in model from nothing: its tokenizer and its weights, on the plain text of the small world.

    python scripts/train_micro.py [--out fccl/assets/micro] [--steps 3500]

Deterministic: the same machine and thread count give the same bytes. About 20 minutes on two cores. The text is made by
`fccl/data/builtin/corpus.py`; no instruction of the built-in data is in it (`tests/data/builtin/test_builtin.py`).
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from fccl.data.builtin.corpus import documents
from fccl.data.builtin.world import load_world

END = "<|endoftext|>"
TEMPLATE_WORDS = (
    "### Instruction:\n\n### Response:\n"  # so that the prompt's frame costs few tokens; the model never reads it
)
CONTEXT, WINDOW, BATCH, WARMUP, PEAK_LR, SEED = 512, 128, 32, 100, 3e-3, 20_26


def train_tokenizer(texts: list[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE tokenizer like GPT-2's, with a small vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *[TEMPLATE_WORDS] * 2000], trainer)
    return tokenizer


def tokens_of(tokenizer: Tokenizer, texts: list[str]) -> torch.Tensor:
    """All documents in one row of token ids, each closed by the end-of-text token."""
    end = tokenizer.token_to_id(END)
    return torch.tensor(
        np.concatenate([[*encoding.ids, end] for encoding in tokenizer.encode_batch(texts)]), dtype=torch.long
    )


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to a tenth."""
    if step < WARMUP:
        return PEAK_LR * (step + 1) / WARMUP
    return PEAK_LR * (0.55 + 0.45 * math.cos(math.pi * (step - WARMUP) / max(1, steps - WARMUP)))


def train(model: GPT2LMHeadModel, tokens: torch.Tensor, steps: int) -> None:
    """Plain language modelling on random windows.

    Windows start at random positions, so every position embedding learns.
    """
    draw = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, weight_decay=0.05, betas=(0.9, 0.95))
    start, total = time.monotonic(), 0.0
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        at = torch.randint(len(tokens) - WINDOW, (BATCH, 1), generator=draw)
        ids = tokens[at + torch.arange(WINDOW)]
        positions = torch.randint(CONTEXT - WINDOW + 1, (BATCH, 1), generator=draw) + torch.arange(WINDOW)
        loss = model(input_ids=ids, position_ids=positions, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total += loss.item()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}/{steps}  loss {total / 100:.3f}  {time.monotonic() - start:.0f} s", flush=True)
            total = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("fccl/assets/micro"))
    parser.add_argument("--steps", type=int, default=3500)
    parser.add_argument("--documents", type=int, default=60_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=1536)
    args = parser.parse_args()

    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    texts = list(documents(load_world(), args.documents))
    tokenizer = train_tokenizer(texts[:20_000], args.vocabulary)
    tokens = tokens_of(tokenizer, texts)
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(),
        n_positions=CONTEXT,
        n_embd=args.width,
        n_layer=args.layers,
        n_head=args.heads,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    model = GPT2LMHeadModel(config)
    print(
        f"{len(texts)} documents, {len(tokens):,} tokens, {model.num_parameters():,} parameters, vocabulary "
        f"{config.vocab_size}",
        flush=True,
    )
    train(model, tokens, args.steps)
    args.out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(args.out)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, unk_token=END, pad_token=END, model_max_length=CONTEXT
    ).save_pretrained(args.out)


if __name__ == "__main__":
    main()
