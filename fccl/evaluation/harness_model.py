"""`HarnessModel`: our language model as lm-evaluation-harness asks for it, whatever engine computes it.

The harness gives text; it is encoded here as the harness's own model for transformers does it. Log-probabilities and
greedy answers then come from `LanguageModel`, so a task is scored by the very engine that was trained with.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from fccl.data.examples import Turn
from fccl.evaluation.task_files import harness_ids
from fccl.model.chat_template import ChatTemplate
from fccl.model.encoding import Encoded
from fccl.model.language_model import LanguageModel
from fccl.model.scoring import Progress, length_sorted_batches, no_progress, score_sft

Ids = list[int]
_NEW_TOKENS = 256  # of an answer, where its task names no number


class HarnessModel(TemplateLM):  # type: ignore[misc]  # the harness has no types
    """A model with the adapter that is loaded in it.

    `greedy_tasks` name those that ask whether a continuation is what the model itself would write; for all others that
    costs time and is not found out.
    """

    def __init__(
        self,
        model: LanguageModel,
        batch_size: int,
        greedy_tasks: Collection[str] = (),
        on_batch: Progress = no_progress,
    ) -> None:
        super().__init__()
        self.model, self.tokenizer, self.batch_size = model, model.tokenizer, batch_size
        self.greedy_tasks, self.on_batch = frozenset(greedy_tasks), on_batch
        self.max_length = model.spec.max_length

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def tokenizer_name(self) -> str:
        """The name that tells prompts of one template from those of another."""
        return str(self.tokenizer.name_or_path)

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """A task's messages as the model's chat template writes them, up to where the answer begins. Without
        `add_generation_prompt` the last message is an answer that the task has begun. Raises `ModelError`.
        """
        turns = tuple(Turn(message["role"], message["content"]) for message in chat_history)  # type: ignore[arg-type]
        text = ChatTemplate(self.tokenizer).render(turns, ask=add_generation_prompt).text
        if add_generation_prompt:
            return text
        last = turns[-1].content
        begun = last if last in text else last.strip()  # some templates strip what they write
        return text[: text.rindex(begun) + len(begun)]

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: object) -> Ids:
        """The ids of a text."""
        return harness_ids(self.model, string, add_special_tokens)

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Of each (context, continuation): log p in nats, and whether it is the greedy one."""
        self._asked = [request.task_name in self.greedy_tasks for request in requests]
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], Ids, Ids]], **_: object
    ) -> list[tuple[float, bool]]:
        rows = [self._row(context, continuation) for _, context, continuation in requests]
        scores = -score_sft(self.model, rows, self.batch_size, self.on_batch).nll
        greedy = self._are_greedy([row for row, asked in zip(rows, self._asked, strict=True) if asked])
        return [(float(score), asked and next(greedy)) for score, asked in zip(scores, self._asked, strict=True)]

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[float]:
        """log p of each whole text in nats, from windows of the context's length that overlap by one token."""
        windows, owners = [], []
        for index, request in enumerate(requests):
            pairs = get_rolling_token_windows(
                self.tok_encode(request.args[0]), self.prefix_token_id, self.max_length - 1, context_len=1
            )
            rows = [self._row(*make_disjoint_window(pair)) for pair in pairs]
            windows += rows
            owners += [index] * len(rows)
        scores, found = score_sft(self.model, windows, self.batch_size, self.on_batch).nll, [0.0] * len(requests)
        for owner, score in zip(owners, scores, strict=True):
            found[owner] -= float(score)
        return found

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[str]:
        """The greedy answer to each context, up to the first of its task's stop words."""
        found = [""] * len(requests)
        size = [int(request.args[1].get("max_gen_toks", _NEW_TOKENS)) for request in requests]
        order = sorted(range(len(requests)), key=lambda index: size[index])
        for new_tokens, indices in groupby(order, key=lambda index: size[index]):
            self._generate([(index, requests[index]) for index in indices], new_tokens, found)
        return found

    def _generate(self, requests: Sequence[tuple[int, Instance]], new_tokens: int, found: list[str]) -> None:
        room = min(new_tokens, self.max_length - 1)
        prompts = [self.tok_encode(request.args[0])[-(self.max_length - room) :] for _, request in requests]
        for batch in length_sorted_batches([len(ids) + room for ids in prompts], self.batch_size):
            answers = self.model.continuations([prompts[index] for index in batch], room)
            for index, ids in zip(batch, answers, strict=True):
                place, request = requests[index]
                text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
                found[place] = until(text, request.args[1].get("until", ()))

    def _row(self, context: Ids, continuation: Ids) -> Encoded:
        """Both as one row; what does not fit is cut from the left, and at least one token is the context."""
        ids = (*context, *continuation)[-self.max_length :]
        return Encoded(ids, max(1, len(ids) - len(continuation)), len(context) + len(continuation) > len(ids))

    def _are_greedy(self, rows: Sequence[Encoded]) -> Iterator[bool]:
        """Whether each row's continuation is the greedy one; a context is continued once, as far as any row needs."""
        longest: dict[tuple[int, ...], int] = {}
        for row in rows:
            prompt = row.ids[: row.prompt_length]
            longest[prompt] = max(longest.get(prompt, 0), row.response_length)
        prompts = list(longest)
        written: dict[tuple[int, ...], tuple[int, ...]] = {}
        for batch in length_sorted_batches([len(ids) + longest[ids] for ids in prompts], self.batch_size):
            chosen = [prompts[index] for index in batch]
            ids = self.model.continuations(chosen, max(longest[prompt] for prompt in chosen))
            written |= dict(zip(chosen, map(tuple, ids), strict=True))
        return (
            written[row.ids[: row.prompt_length]][: row.response_length] == row.ids[row.prompt_length :] for row in rows
        )


def until(text: str, stops: str | Sequence[str]) -> str:
    """The text up to the first stop word in it.

    >>> until("It is hot.\\nQ: next", ["Q:", "\\n"])
    'It is hot.'
    """
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.split(stop)[0] if stop else text
    return text
