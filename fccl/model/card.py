"""The README.md that goes with an export: what it is, what it was made of, how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCardData

from fccl.adapters.adapter import Adapter
from fccl.adapters.ranks import rank_of
from fccl.display.plain_text import printable
from fccl.display.words import plural
from fccl.model.base_model import public_name
from fccl.records.manifest import Manifest, SourceReport
from fccl.specs import ModelSpec, PromptFormat, RoundPlan

_PROMPTS: Mapping[PromptFormat, str] = {
    "plain": "The prompt it knows is `### Instruction:\\n{instruction}\\n\\n### Response:`; the response follows after "
    "one space.",
    "chat": "It was trained on conversations in its tokenizer's chat template: "
    "`tokenizer.apply_chat_template(messages, add_generation_prompt=True)` writes its prompt.",
}
_ELSEWHERE = (
    "`fccl export FOLDER --base`, where the run is, writes that base model as a plain folder; `--merge` "
    "writes "
    "base "
    "model and adapter as one."
)


@dataclass(frozen=True)
class CardWriter:
    """The cards of one run's exports.

    `made_of` names the base model and the adapters that were folded into it, as `LanguageModel` has them.
    """

    model: ModelSpec
    made_of: tuple[str, ...]
    plan: RoundPlan
    manifest: Manifest

    def adapter(self, adapter: Adapter) -> str:
        """The card of a global adapter in PEFT's format, in Markdown."""
        return "\n".join(
            [
                *self._head("peft"),
                f"# LoRA adapter of {self._name}, trained by federation",
                "",
                *self._training(adapter),
                "Load it on the very base model it was trained on:",
                "",
                *_code(
                    [
                        "from peft import PeftModel",
                        *self._load_base(),
                        'model = PeftModel.from_pretrained(base, "PATH/TO/THIS/FOLDER")',
                    ]
                ),
                *([] if self._hub_name else [self._where(), ""]),
                *self._tail(adapter),
            ]
        )

    def merged(self, adapter: Adapter) -> str:
        """The card of the base model with the adapter folded in."""
        return "\n".join(
            [
                *self._head("transformers"),
                f"# {self._name} with a LoRA adapter folded in, trained by federation",
                "",
                *self._training(adapter),
                *_code(
                    [
                        "from transformers import AutoModelForCausalLM",
                        'model = AutoModelForCausalLM.from_pretrained("PATH/TO/THIS/FOLDER")',
                    ]
                ),
                *self._tail(adapter),
            ]
        )

    def base(self) -> str:
        """The card of the base model alone."""
        return "\n".join(
            [*self._head("transformers"), f"# {self._name}, the base model of a federation", "", *self._folded(), ""]
        )

    @property
    def _hub_name(self) -> str | None:
        """The name by which the base model is found everywhere, if one name is all of it."""
        name = public_name(self.made_of[0])
        return name if name and not name.startswith("builtin:") and len(self.made_of) == 1 else None

    @property
    def _name(self) -> str:
        return _shown(self.made_of[0])

    def _head(self, library: str) -> list[str]:
        public = public_name(self.made_of[0])
        base = public if public and not public.startswith("builtin:") else None
        data = ModelCardData(base_model=base, library_name=library, tags=["lora", "federated-learning", "fccl"])
        return ["---", data.to_yaml(), "---", ""]

    def _training(self, adapter: Adapter) -> list[str]:
        plan, model = self.plan, self.model.of_rank(rank_of(adapter.form))
        return [
            f"{plural(plan.num_clients, 'client')}, {plan.clients_per_round} a round, {_rounds(plan)}, "
            "aggregated by FCCL.",
            f"Rank {model.lora_r}, alpha {model.lora_alpha:g}{_layers(model)}, seed {plan.seed}. "
            f"Trained on the base model in {model.base_precision}.",
            "",
            *self._folded(),
            "Data:",
            "",
            *(f"- {_source(source)} ({source.rows_read:,} rows)" for source in self.manifest.sources),
            "",
        ]

    def _folded(self) -> list[str]:
        adapters = ", then ".join(_shown(name) for name in self.made_of[1:])
        return [f"Folded into the base model before: the adapter {adapters}.", ""] if adapters else []

    def _tail(self, adapter: Adapter) -> list[str]:
        named = f"Adapter hash (names, shapes and bits of the tensors): `{adapter.sha256}`."
        return [_PROMPTS[self.model.text.prompt], "", named, ""]

    def _load_base(self) -> list[str]:
        name, public = self.made_of[0], public_name(self.made_of[0])
        if name.startswith("builtin:"):
            lines = [
                "from fccl.model.base_model import base_path",
                f"base = AutoModelForCausalLM.from_pretrained(base_path({name!r}))",
            ]
        else:
            lines = [f"base = AutoModelForCausalLM.from_pretrained({public or 'PATH/TO/' + _shown(name)!r})"]
        folded = [
            "base = PeftModel.from_pretrained(base, "
            f"{public_name(each) or 'PATH/TO/' + _shown(each)!r}).merge_and_unload()"
            for each in self.made_of[1:]
        ]
        return ["from transformers import AutoModelForCausalLM", *sorted(lines[:-1]), "", lines[-1], *folded]

    def _where(self) -> str:
        if len(self.made_of) > 1:
            return f"Its base model is made of {len(self.made_of)} parts. {_ELSEWHERE}"
        if self.made_of[0].startswith("builtin:"):
            return f"The base model comes with the package `fccl`. {_ELSEWHERE}"
        return f"The base model is a folder of the machine that trained the adapter. {_ELSEWHERE}"


def _shown(name: str) -> str:
    """A model's public name, or the last part of its folder's path: what else stands in it is nobody's business."""
    return printable(public_name(name) or Path(name).resolve().name, 200)


def _layers(model: ModelSpec) -> str:
    """Where the LoRA is, if not on all layers."""
    if model.lora_layers is None:
        return ""
    return ", on the top layer alone" if model.lora_layers == 1 else f", on the top {model.lora_layers} layers"


def _rounds(plan: RoundPlan) -> str:
    """The rounds of each phase that has any, in words."""
    sft, va = plan.rounds_of("sft"), plan.rounds_of("va")
    said = {
        f"{plural(sft, 'round')} of instruction tuning (FedIT)": sft,
        f"{plural(va, 'round')} of value alignment (FedVA, DPO against the adapter "
        f"{'after FedIT' if sft else 'before it'})": va,
    }
    return " and ".join(words for words, count in said.items() if count)


def _source(source: SourceReport) -> str:
    return printable(Path(source.name).name if source.kind == "file" else source.name, 200)


def _code(lines: list[str]) -> list[str]:
    return ["```python", *lines, "```", ""]
