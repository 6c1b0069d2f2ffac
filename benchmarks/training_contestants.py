"""One way to train a model with LoRA, in a process of its own: `bench_training.py` starts it and says when it may step.

    python benchmarks/training_contestants.py NAME MODEL_FOLDER EXAMPLES.json

Writes "ready" when it is, then for every line that it reads takes one step of the next `BENCH_BATCH` examples and
writes the seconds that it took. At the end of its input it writes its peak memory in bytes; the GPU's where there is
one.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

if TYPE_CHECKING:  # a rival's memory is its own
    from fccl.specs import BasePrecision, Engine, Phase

BATCH, MOST = int(os.environ.get("BENCH_BATCH", "8")), int(os.environ.get("BENCH_MOST", "256"))
TARGETS = os.environ.get("BENCH_TARGETS", "c_attn")
RANK, ALPHA, RATE, BETA = 8, 16.0, 1e-4, 0.1
Steps = Callable[[str, list[dict[str, str]]], Iterator[None]]  # of a model's folder and examples


def ours(engine: Engine, phase: Phase, base: BasePrecision = "fp32") -> Steps:
    """This project's own loop over one of its engines: training as a client does it, step by step. `base` is the
    precision of the frozen weights.
    """

    def steps(folder: str, examples: list[dict[str, str]]) -> Iterator[None]:
        from fccl.model.loading import load_model
        from fccl.model.objectives import objective_for
        from fccl.specs import ModelSpec, PreferenceSpec
        from fccl.training.objective import ObjectiveUnderModel, reference_log_probs

        lora = {"lora_r": RANK, "lora_alpha": ALPHA, "lora_targets": TARGETS}
        spec = ModelSpec(name=folder, max_length=MOST, engine=engine, base_precision=base, **lora)
        model = load_model(spec)
        model.load(model.initial_adapter(0))
        rows = encoded(model.tokenizer, phase, examples)
        reference = reference_log_probs(model, model.adapter(), rows, BATCH) if phase == "va" else None
        objective = ObjectiveUnderModel(model, objective_for(phase, rows, reference, PreferenceSpec(beta=BETA)))
        factors = list(model.factors.items())
        optimizer = torch.optim.AdamW([factor for _, factor in factors], lr=RATE, fused=True)
        for start in range(0, len(rows), BATCH):
            found = objective.at(range(start, start + BATCH))
            for name, factor in factors:
                factor.grad = found.gradient[name]
            torch.nn.utils.clip_grad_norm_([factor for _, factor in factors], 1.0)
            optimizer.step()
            yield

    return steps


def encoded(tokenizer: Any, phase: Phase, examples: list[dict[str, str]]) -> Any:
    """The examples as this project's clients encode theirs."""
    from fccl.data.examples import PreferencePair, SftExample
    from fccl.model.encoding import encode

    shard = [
        SftExample(example["instruction"], example["completion"].strip())
        if phase == "sft"
        else PreferencePair(example["instruction"], example["chosen"].strip(), example["rejected"].strip())
        for example in examples
    ]
    return encode(tokenizer, phase, shard, MOST)


def products(phase: Phase) -> Steps:
    """The machine's limit: the matrix products of a step alone, forward and to the input, and nothing between them.

    No token is padded, a pair has its prompt once, and the last layer and the head see only tokens that predict.
    """

    def steps(folder: str, examples: list[dict[str, str]]) -> Iterator[None]:
        from transformers import AutoConfig, AutoTokenizer

        from fccl.model.packing import pack

        config = AutoConfig.from_pretrained(folder)
        rows = encoded(AutoTokenizer.from_pretrained(folder), phase, examples)
        width, draw = config.n_embd, torch.Generator().manual_seed(0)
        shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
        layers = [[torch.randn(shape, generator=draw) for shape in shapes] for _ in range(config.n_layer)]
        head = torch.randn(config.vocab_size, width, generator=draw)
        for start in range(0, len(rows), BATCH):
            packed = pack(rows[start : start + BATCH])
            for number, weights in enumerate(layers):
                for place, weight in enumerate(weights):
                    whole = number < len(layers) - 1 or place == 0
                    both_ways(torch.randn(len(packed.ids) if whole else len(packed.rows), weight.shape[0]), weight)
            for part in torch.split(torch.randn(len(packed.rows), width), 512):
                both_ways(part, head.T)
            yield

    return steps


def both_ways(x: torch.Tensor, weight: torch.Tensor) -> None:
    """A product and the one of its gradient: x (T, in), weight (in, out)."""
    (x @ weight) @ weight.T


def peft_model(folder: str) -> tuple[Any, Any]:
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return get_peft_model(base, lora_config()), AutoTokenizer.from_pretrained(folder)


def lora_config() -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=0.0,
        target_modules=TARGETS if TARGETS == "all-linear" else TARGETS.split(","),
        fan_in_fan_out=TARGETS == "c_attn",  # GPT-2's layers keep their weights the other way round
        task_type="CAUSAL_LM",
    )


def plain_loop(compiled: bool) -> Steps:
    """Forty lines that a careful person writes: packed rows, response rows before the head, one GELU kernel.

    `compiled`: forward, loss and backward by `torch.compile`, for any number of tokens.
    """

    def steps(folder: str, examples: list[dict[str, str]]) -> Iterator[None]:
        import transformers.activations
        from torch import nn

        transformers.activations.ACT2CLS["gelu_new"] = lambda: nn.GELU(approximate="tanh")
        model, tokenizer = peft_model(folder)
        model.eval()
        base = model.get_base_model()
        body = getattr(base, base.base_model_prefix)
        factors = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(factors, lr=RATE, fused=True)

        def loss_of(ids: Any, positions: Any, mask: Any, rows: Any, targets: Any) -> torch.Tensor:
            hidden = body(input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False)
            return nn.functional.cross_entropy(base.lm_head(hidden.last_hidden_state[0, rows]), targets)

        measure: Callable[..., Any] = torch.compile(loss_of, dynamic=True) if compiled else loss_of
        for start in range(0, len(examples), BATCH):
            loss = measure(*packed_by_hand(tokenizer, examples[start : start + BATCH]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(factors, 1.0)
            optimizer.step()
            yield

    return steps


def packed_by_hand(tokenizer: Any, examples: list[dict[str, str]]) -> tuple[torch.Tensor, ...]:
    """A batch in one row: ids and positions (1, T), mask (1, 1, T, T), the N rows that predict, their targets (N,)."""
    pairs = [
        (tokenizer(each["prompt"])["input_ids"], [*tokenizer(each["completion"])["input_ids"], tokenizer.eos_token_id])
        for each in examples
    ]
    ids = torch.tensor([[token for prompt, answer in pairs for token in (*prompt, *answer)]])
    lengths = torch.tensor([len(prompt) + len(answer) for prompt, answer in pairs])
    positions = torch.cat([torch.arange(int(length)) for length in lengths]).unsqueeze(0)
    wanted = torch.tensor([flag for prompt, answer in pairs for flag in [False] * len(prompt) + [True] * len(answer)])
    owner = torch.repeat_interleave(torch.arange(len(pairs)), lengths)
    mask = (owner[:, None] == owner[None, :]).tril()[None, None]
    rows = wanted.nonzero().squeeze(1) - 1
    return ids, positions, mask, rows, ids[0, rows + 1]


def trl(phase: Phase, best: bool) -> Steps:
    """TRL's trainer; a callback stops it before each step until it may go on."""

    def steps(folder: str, examples: list[dict[str, str]]) -> Iterator[None]:
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

        Config, Trainer = (SFTConfig, SFTTrainer) if phase == "sft" else (DPOConfig, DPOTrainer)
        # bf16 is TRL's default, which a CPU without it must be told to leave; all else is as it comes
        chosen: dict[str, Any] = {
            "bf16": os.environ.get("BENCH_BF16") == "1",
            "learning_rate": RATE,
            "max_length": MOST,
        }
        if best:
            chosen |= {"gradient_checkpointing": False}
            chosen |= (
                {"padding_free": True, "max_length": None}  # no example is longer
                if phase == "sft"
                else {
                    "precompute_ref_log_probs": True,
                    "per_device_train_batch_size": 1,
                    "gradient_accumulation_steps": BATCH,
                }
            )
        chosen = {"per_device_train_batch_size": BATCH} | chosen
        config = Config(
            output_dir=os.environ["BENCH_SCRATCH"],
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            num_train_epochs=1,
            train_sampling_strategy="sequential",
            use_cpu=not torch.cuda.is_available(),
            **chosen,
        )
        from transformers import AutoModelForCausalLM, AutoTokenizer

        trainer = Trainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            args=config,
            train_dataset=Dataset.from_list(examples).remove_columns("instruction"),
            processing_class=AutoTokenizer.from_pretrained(folder),
            peft_config=lora_config(),
        )
        yield from stopped_before_each_step(trainer)

    return steps


def stopped_before_each_step(trainer: Any) -> Iterator[None]:
    """Train in a thread that waits before each step: one yield a step."""
    import threading

    from transformers import TrainerCallback

    may, done = threading.Semaphore(0), threading.Semaphore(0)

    class Gate(TrainerCallback):
        def on_step_begin(self, *args: Any, **named: Any) -> None:
            may.acquire()

        def on_step_end(self, *args: Any, **named: Any) -> None:
            done.release()

    trainer.add_callback(Gate())
    threading.Thread(target=trainer.train, daemon=True).start()
    while True:
        may.release()
        done.acquire()
        yield


CONTESTANTS: dict[str, Steps] = {
    "products-sft": products("sft"),
    "products-va": products("va"),
    "gpt2-sft": ours("gpt2", "sft"),
    "gpt2-va": ours("gpt2", "va"),
    "generic-sft": ours("generic", "sft"),
    "generic-va": ours("generic", "va"),
    "int8-sft": ours("auto", "sft", "int8"),
    "int8-va": ours("auto", "va", "int8"),
    "trl-sft": trl("sft", best=False),
    "trl-va": trl("va", best=False),
    "trl-best-sft": trl("sft", best=True),
    "trl-best-va": trl("va", best=True),
    "loop-sft": plain_loop(compiled=False),
    "compile-sft": plain_loop(compiled=True),
}


def main(name: str, folder: str, examples_file: str) -> None:
    said, sys.stdout = sys.stdout, sys.stderr  # libraries print; only these lines are the protocol's
    torch.set_num_threads(int(os.environ.get("BENCH_THREADS", os.cpu_count() or 1)))
    examples = json.loads(Path(examples_file).read_text())
    steps = CONTESTANTS[name](folder, examples)
    next(steps)  # the first step loads, allocates and caches: not counted
    print("ready", file=said, flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        next(steps)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        print(time.perf_counter() - started, file=said, flush=True)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(torch.cuda.max_memory_allocated() if torch.cuda.is_available() else own, file=said, flush=True)
    os._exit(0)  # a trainer's thread may still wait


if __name__ == "__main__":
    main(*sys.argv[1:4])
