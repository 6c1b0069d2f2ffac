"""A client of the original protocol, as its published script works: five kinds of file, names of the model in memory.

    python original_client.py EXCHANGE_DIR SHARDS_FOLDER CLIENT_ID MODEL_FOLDER LORA_TARGET LORA_R

It imports nothing of this package and sees no task, no hash and no key. It takes one example a step, with gradient
checkpointing on.
"""

import json
import sys
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import log_softmax, logsigmoid
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPT = "### Instruction:\n{}\n\n### Response:"
BETA, LEARNING_RATE, LONGEST = 0.1, 1e-3, 128


class Trainer:
    """The model with its LoRA."""

    def __init__(self, folder, target, rank):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        lora = LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules=[target], fan_in_fan_out=True, task_type="CAUSAL_LM"
        )
        self.model = get_peft_model(base, lora)
        self.model.enable_input_require_grads()
        self.model.gradient_checkpointing_enable()
        self.model.config.use_cache = False
        self.model.train()

    def load(self, state):
        """As the script does it: names that the model does not have are passed over without a word.

        Returns how many were.
        """
        return len(self.model.load_state_dict(state, strict=False).unexpected_keys)

    def state(self):
        return {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items() if "lora_" in name}

    def log_probs(self, instruction, response):
        """log p of every token of the response."""
        before = self.tokenizer(PROMPT.format(instruction)).input_ids
        ids = (before + self.tokenizer(f" {response}").input_ids)[:LONGEST]
        logits = self.model(input_ids=torch.tensor([ids])).logits[0, :-1]
        found = log_softmax(logits.float(), dim=-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        return found[min(len(before), LONGEST - 1) - 1 :]

    def sft_loss(self, example, _):
        return -self.log_probs(example["instruction"], example["response"]).mean()

    def margin(self, pair):
        chosen, rejected = (
            self.log_probs(pair["instruction"], pair[side]).sum() for side in ("preferred", "dispreferred")
        )
        return chosen - rejected

    def va_loss(self, pair, reference):
        return -logsigmoid(BETA * (self.margin(pair) - reference))

    def train(self, examples, loss_of, references):
        optimizer = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], lr=LEARNING_RATE)
        losses = []
        for example, reference in zip(examples, references, strict=True):
            loss = loss_of(example, reference)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return sum(losses) / len(losses)


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main(exchange, shards, client_id, folder, target, rank):
    torch.manual_seed(client_id)
    trainer, reference, number = Trainer(folder, target, rank), None, 0
    while True:
        while not (exchange / f"phase_{number}.txt").exists():
            time.sleep(0.1)
        phase = (exchange / f"phase_{number}.txt").read_text().strip()
        if phase == "done":
            return
        state = torch.load(exchange / f"global_round_{number}.pt", map_location="cpu")
        print(f"round {number} {phase}: {len(state)} tensors, {trainer.load(state)} unknown", flush=True)
        examples = rows(shards / f"client_{client_id}_{phase}.jsonl")
        references = [None] * len(examples)
        if phase == "va":
            reference = reference or state  # the global adapter after the last SFT round
            trainer.load(reference)
            with torch.no_grad():
                references = [trainer.margin(pair) for pair in examples]
            trainer.load(state)
        loss = trainer.train(examples, trainer.sft_loss if phase == "sft" else trainer.va_loss, references)
        torch.save(trainer.state(), exchange / f"client_{client_id}_round_{number}.pt")
        said = {"client": client_id, "avg_loss": loss, "num_samples": len(examples), "ts": time.time()}
        (exchange / f"contrib_client_{client_id}_round_{number}.json").write_text(json.dumps(said))
        (exchange / f"done_{client_id}_{number}.flag").touch()
        number += 1


if __name__ == "__main__":
    exchange, shards, client_id, folder, target, rank = sys.argv[1:]
    main(Path(exchange), Path(shards), int(client_id), folder, target, int(rank))
