"""The README.md that goes with an adapter: what it is, what it was made of, how to load it."""

from __future__ import annotations

from fccl.adapter import Adapter
from fccl.data.shards import Manifest
from fccl.lora import rank_of
from fccl.specs import ModelSpec, RoundPlan

_LOAD = """```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained({base})
model = PeftModel.from_pretrained(base, "PATH/TO/THIS/FOLDER")
```"""


def adapter_card(model: ModelSpec, plan: RoundPlan, manifest: Manifest, adapter: Adapter) -> str:
    """The card of a global adapter, in Markdown."""
    model = model.of_rank(rank_of(adapter.form))
    base = "fccl.base_model.base_path('builtin:micro')" if model.name.startswith("builtin:") else f"{model.name!r}"
    sources = "\n".join(f"- {source.name} ({source.rows_read:,} rows)" for source in manifest.sources)
    return f"""---
base_model: {model.name}
library_name: peft
tags: [lora, federated-learning, fccl]
---

# LoRA adapter of {model.name}, trained by federation

{plan.num_clients} clients, {plan.clients_per_round} a round, {plan.fed_rounds} rounds of instruction tuning (FedIT) and {plan.fed_rounds} of value
alignment (FedVA, DPO against the adapter after FedIT), aggregated by FCCL. Rank {model.lora_r}, alpha {model.lora_alpha:g}, seed {plan.seed}.

Data:

{sources}

Load it on the very base model it was trained on:

{_LOAD.format(base=base)}

The prompt it knows is `### Instruction:\\n{{instruction}}\\n\\n### Response:`; the response follows after one space.

Adapter hash (names, shapes and bits of the tensors): `{adapter.sha256}`.
"""
