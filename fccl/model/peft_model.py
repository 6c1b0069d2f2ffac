"""The generic engine's model: any causal language model of transformers, its LoRA PEFT's, gradients by autograd.

transformers and PEFT enter the package in this folder, and in `fccl.hf` where trainers of others come in.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from fccl.model import peft_alone  # noqa: F401 - before PEFT

# isort: split
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.activations import NewGELUActivation
from transformers.pytorch_utils import Conv1D

from fccl.adapters.adapter import Adapter, Form
from fccl.adapters.ranks import initial, leading, of_rank, rank_of, trailing
from fccl.errors import ModelError
from fccl.model.base_model import first_line, load_base, public_name
from fccl.model.bnb_layers import BNB, quantise
from fccl.model.chat import end_ids
from fccl.model.clipping import clipped_one_by_one
from fccl.model.encoding import Batch, Responses, collate
from fccl.model.frozen_directions import FrozenDirections
from fccl.model.language_model import GENERIC, Choose, EachLoss, Loss, LossAndGradient
from fccl.model.lora_targets import linear_names, targets, top_layers
from fccl.model.losses import sequence_log_probs, target_log_probs, target_log_probs_of
from fccl.model.packed_attention import can_pack, last_hidden_state, pack_for
from fccl.model.precision import DTYPES, KEEPS_WEIGHTS, float32_head, keep_in, own_device
from fccl.specs import ModelSpec
from fccl.storage.files import write_text

# One model at a time in a process: transformers keeps the state of a loading in globals, and where two threads load at
# once one finds weights missing.
LOADING = threading.RLock()
# Models whose logits are exactly the output embeddings times the last hidden state: these need logits only where a loss
# does.
_PLAIN_HEADS = frozenset({"gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "opt", "phi", "qwen2", "qwen3"})


@dataclass(frozen=True)
class PeftLanguageModel:
    """`fccl.model.language_model.LanguageModel` over transformers, PEFT and torch's graph.

    Rows are packed where the architecture computes the same so (`fccl.model.packed_attention`), else padded. `padded`
    has them padded always: the oracle of the packed ones and of every faster engine. The modules are always in
    evaluation mode, so that policy and reference agree.
    """

    spec: ModelSpec
    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    factors: Mapping[str, nn.Parameter]
    device: torch.device
    made_of: tuple[str, ...] = ()
    engine: str = GENERIC
    padded: bool = False

    @property
    def pad_id(self) -> int:
        """The id that rows are padded with; no response token is ever read there."""
        return int(self.tokenizer.pad_token_id)

    @property
    def base(self) -> PreTrainedModel:
        """The transformers model, its target modules wrapped by PEFT."""
        return self.model.get_base_model()

    @cached_property
    def form(self) -> Form:
        """Names and shapes of the LoRA factors."""
        return Form({name: tuple(parameter.shape) for name, parameter in self.factors.items()})

    def load(self, adapter: Adapter) -> None:
        """Copy an adapter's values in. The trailing directions of a wider one go into the frozen base weights.

        Raises `AdapterError` when it does not fit.
        """
        of_rank(self.form, max(self.spec.lora_r, rank_of(adapter.form))).require(adapter.form)
        own = leading(adapter, self.spec.lora_r)
        with torch.no_grad():
            self.frozen.hold(trailing(adapter, self.spec.lora_r))
            for name, parameter in self.factors.items():
                parameter.copy_(own.tensors[name])

    def adapter(self) -> Adapter:
        """A copy of the LoRA factors as they are now. Raises `AdapterError` when they are not finite."""
        return Adapter({name: parameter.detach().float().cpu().clone() for name, parameter in self.factors.items()})

    def initial_adapter(self, seed: int) -> Adapter:
        """Drawn as PEFT draws it, but from a named seed (`fccl.adapters.ranks.initial`)."""
        return initial(self.form, seed)

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """The tokens at which a response ends."""
        return end_ids(self.tokenizer, self.spec.text)

    @cached_property
    def frozen(self) -> FrozenDirections:
        """The trailing directions of the adapter that is loaded."""
        return FrozenDirections(self.model, self.spec.lora_alpha / self.spec.lora_r)

    @torch.no_grad()
    def response_log_probs(self, examples: Sequence[Responses]) -> Tensor:
        """log p(response | prompt) of every response: (n, k)."""
        return self._log_probs(examples)

    @torch.enable_grad()
    def loss_and_gradient(
        self, examples: Sequence[Responses], loss: Loss, factors: Collection[str] | None = None
    ) -> LossAndGradient:
        """`loss` of the batch's log-probabilities and its gradient: zero for a factor that the loss does not reach."""
        wanted = {name: factor for name, factor in self.factors.items() if factors is None or name in factors}
        value = loss(self._log_probs(examples))
        parts = torch.autograd.grad(value, list(wanted.values()), materialize_grads=True)
        gradient = {name: part.contiguous() for name, part in zip(wanted, parts, strict=True)}
        return LossAndGradient(float(value.detach()), gradient)

    def clipped_sum(
        self, examples: Sequence[Responses], losses: EachLoss, clip: float, factors: Collection[str] | None = None
    ) -> Mapping[str, Tensor]:
        """The sum of the examples' clipped gradients, computed one after another."""
        return clipped_one_by_one(self, examples, losses, clip, factors)

    @torch.enable_grad()
    def weight_gradient(self, examples: Sequence[Responses], loss: Loss) -> dict[str, Tensor]:
        """The gradient of a batch's loss with respect to the frozen weights under LoRA: (fan_out, fan_in), by A's name.

        Of weights that are floating-point numbers. Leaves them frozen.
        """
        layers = {name: self.model.get_submodule(name.partition(".lora_A.")[0]).base_layer for name in self.a_names}
        weights = [layer.weight.requires_grad_(True) for layer in layers.values()]
        try:
            parts = torch.autograd.grad(loss(self._log_probs(examples)), weights)
        finally:
            for weight in weights:
                weight.requires_grad_(False)
        found = zip(layers.items(), parts, strict=True)
        return {name: part.T if isinstance(layer, Conv1D) else part for (name, layer), part in found}

    @property
    def a_names(self) -> list[str]:
        """The names of all A, sorted."""
        return [name for name in self.factors if ".lora_A." in name]

    def _log_probs(self, examples: Sequence[Responses]) -> Tensor:
        """(n, k) float64, in the graph where there is one: DPO takes small differences of large sums."""
        packs = not self.padded and can_pack(self.base.config, self.spec.max_length)
        return self._packed_log_probs(examples) if packs else self._padded_log_probs(examples)

    def _packed_log_probs(self, examples: Sequence[Responses]) -> Tensor:
        packed = pack_for(examples, self.device, DTYPES[self.spec.base_precision])
        found = self._head_log_probs(last_hidden_state(self._body, packed), packed.targets)
        return packed.sums(found).view(len(examples), -1)

    def _padded_log_probs(self, examples: Sequence[Responses]) -> Tensor:
        """All first responses come before all second ones in the batch."""
        rows = [row for column in zip(*examples, strict=True) for row in column]
        log_probs, mask = self.token_log_probs(collate(rows, self.pad_id))
        return sequence_log_probs(log_probs.double(), mask).view(-1, len(examples)).T

    @property
    def _body(self) -> PreTrainedModel:
        """The base model without its output head."""
        return cast(PreTrainedModel, getattr(self.base, self.base.base_model_prefix))

    def _head_log_probs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """log p of each target from the hidden state before it: (N, D), (N,) -> (N,)."""
        return target_log_probs_of(self._head, hidden, targets, self.base.config.vocab_size)

    @cached_property
    def _head(self) -> Callable[[Tensor], Tensor]:
        """The output head. Under bf16 it has a float32 copy of the weights, made once."""
        return float32_head(self.base.get_output_embeddings())

    def token_log_probs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """log p of every response token given the tokens before it, from padded rows.

        Returns `(log_probs, mask)`, both (B, T-1): entry t speaks of token t+1; zero and false where that is no
        response token. No attention mask is passed: rows are padded on the right, and a causal model's real tokens
        never look there.
        """
        input_ids = batch.input_ids.to(self.device)
        mask = batch.response_mask[:, 1:].to(self.device)
        targets = input_ids[:, 1:][mask]
        if self.base.config.model_type in _PLAIN_HEADS:
            hidden = self._body(input_ids=input_ids, use_cache=False).last_hidden_state
            found = self._head_log_probs(hidden[:, :-1][mask], targets)
        else:
            found = target_log_probs(self.base(input_ids=input_ids, use_cache=False).logits[:, :-1][mask], targets)
        return found.new_zeros(mask.shape).masked_scatter(mask, found), mask

    def continuations(
        self, prompts: Sequence[Sequence[int]], new_tokens: int, choose: Choose | None = None
    ) -> list[list[int]]:
        """The new ids of each prompt. Prompts are padded on the left, so that all go on at the same column."""
        longest = max(map(len, prompts))
        input_ids = torch.full((len(prompts), longest), self.pad_id, dtype=torch.long)
        attention_mask = torch.zeros_like(input_ids)
        for index, prompt in enumerate(prompts):
            input_ids[index, longest - len(prompt) :] = torch.tensor(prompt)
            attention_mask[index, longest - len(prompt) :] = 1
        with self._plain_greedy(new_tokens) as config:
            output = self.base.generate(
                input_ids=input_ids.to(self.device),
                attention_mask=attention_mask.to(self.device),
                generation_config=config,
                logits_processor=[lambda _, scores: choose(scores)] if choose else [],
            )
        rows: list[list[int]] = output[:, longest:].tolist()
        return rows

    @contextmanager
    def _plain_greedy(self, new_tokens: int) -> Iterator[Any]:
        """A generation config of the bare argmax.

        The model's own (a repetition penalty, say) would fill in what ours leaves open, so it steps aside.
        """
        own = self.base.generation_config
        config = type(own)(
            max_new_tokens=new_tokens,
            do_sample=False,
            num_beams=1,
            eos_token_id=list(self.ends),
            pad_token_id=self.pad_id,
            bos_token_id=self.tokenizer.bos_token_id,
        )
        self.base.generation_config = config
        try:
            yield config
        finally:
            self.base.generation_config = own

    def weights(self) -> dict[str, Tensor]:
        """The frozen base weights by name as they are now."""
        return {name: tensor.detach() for name, tensor in self.base.state_dict().items() if "lora_" not in name}

    def write_adapter(self, adapter: Adapter, folder: Path) -> None:
        """Write PEFT's files of an adapter, a wider one with its own rank and with `alpha / r` as it is here."""
        self.load(adapter)
        spec, configs = self.spec.of_rank(rank_of(adapter.form)), self.model.peft_config
        own, config = configs["default"], copy(configs["default"])
        config.r, config.lora_alpha = spec.lora_r, spec.lora_alpha
        for name, value in vars(config).items():
            if isinstance(value, set):  # whose order is another in every process
                setattr(config, name, sorted(value))
        tensors = {name.removesuffix(".weight") + ".default.weight": tensor for name, tensor in adapter.tensors.items()}
        configs["default"] = config
        try:
            # the embeddings are the base model's, untouched
            self.model.save_pretrained(folder, state_dict=tensors, save_embedding_layers=False)
        finally:
            configs["default"] = own
        _name_base(folder / "adapter_config.json", public_name(self.made_of[0]) if len(self.made_of) == 1 else None)

    def write_merged(self, adapter: Adapter, folder: Path) -> None:
        """Write base model and tokenizer, the adapter folded into the weights, in float32 whatever this model is in."""
        self.load(adapter)
        if self.spec.base_precision not in KEEPS_WEIGHTS:
            load_peft_model(self.spec.model_copy(update={"base_precision": "fp32"})).write_merged(adapter, folder)
            return
        state = self.weights()
        for path in (name.partition(".lora_A.")[0] for name in self.a_names):
            # not merged in place: what PEFT takes off again leaves the weights with other last bits
            weight = f"{path.removeprefix('base_model.model.')}.base_layer.weight"
            state[weight] = state[weight] + self.model.get_submodule(path).get_delta_weight("default")
        state = {name.replace(".base_layer", ""): tensor for name, tensor in state.items()}
        self.base.save_pretrained(folder, state_dict=state)
        self.tokenizer.save_pretrained(folder)


def load_peft_model(spec: ModelSpec) -> PeftLanguageModel:
    """Load the base model and put a fresh LoRA on it; waits while another thread loads one. Raises `ModelError`."""
    with LOADING:
        base = load_base(spec.name, spec.max_length)
        keep_in(base.model, DTYPES[spec.base_precision])
        fuse_activations(base.model)
        model = _with_lora(spec, base.model)
        if spec.base_precision in BNB:  # before it goes to a GPU, which need not have room for float32
            quantise(base.model, spec.base_precision)
    factors = {
        name.replace(".default", ""): parameter.requires_grad_(True)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    device = own_device()
    return PeftLanguageModel(
        spec=spec,
        model=model.to(device).eval(),
        tokenizer=base.tokenizer,
        factors=dict(sorted(factors.items())),
        device=device,
        made_of=(base.name, *base.adapters),
    )


def fuse_activations(model: nn.Module) -> None:
    """Put torch's tanh GELU, one kernel, in the place of transformers' `gelu_new`, which is eight operations."""
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, NewGELUActivation):
                setattr(parent, name, nn.GELU(approximate="tanh"))


def _with_lora(spec: ModelSpec, base: PreTrainedModel) -> PeftModel:
    """The model under PEFT. GPT-2's `Conv1D` keeps its weight as (in, out), which PEFT calls `fan_in_fan_out`."""
    layers, pattern = top_layers(spec, base) or (None, None)
    config = LoraConfig(
        r=spec.lora_r,
        lora_alpha=spec.lora_alpha,
        target_modules=targets(spec, base),
        layers_to_transform=layers,
        layers_pattern=pattern,
        fan_in_fan_out=any(
            isinstance(module, Conv1D) for module in base.modules()
        ),  # the layers of one model are all of one kind
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    names = ", ".join(name for name, reason in linear_names(base).items() if not reason)
    try:
        return cast(PeftModel, get_peft_model(base, config))
    except ValueError as error:  # a kind of layer or of model that PEFT has no LoRA for
        hint = f"its linear layers are {names}: name those that PEFT can put a LoRA on with --lora-targets"
        raise ModelError(
            f"LORA_TARGETS={spec.lora_targets}: {spec.name} takes no LoRA there ({first_line(error)})", hint=hint
        ) from error


def _name_base(path: Path, name: str | None) -> None:
    """Put the base model's name, or none, in the place of the path of this machine that PEFT has written."""
    written = json.loads(path.read_text("utf-8"))
    write_text(path, json.dumps(written | {"base_model_name_or_path": name}, indent=2, sort_keys=True) + "\n")
