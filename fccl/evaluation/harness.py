"""Tasks of lm-evaluation-harness on a model in memory: found and loaded first, then answered once for every model.

    tasks = load_tasks(["lambada_openai"])            # before any model is there
    model.load(adapter)
    measures = tasks.measure(model, batch_size=32)    # per-example figures, for `fccl.evaluation.tasks`

Needs the extra `lm-eval`. A task's file may hold Python that its author wrote: a folder of tasks is code.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fccl.data.sources import ask_hub
from fccl.display.plain_text import printable
from fccl.errors import DataError, FcclError, SettingsError
from fccl.evaluation.tasks import TaskMeasure
from fccl.extras import require_extra
from fccl.model.chat_template import template_of
from fccl.model.language_model import LanguageModel
from fccl.model.scoring import Progress, no_progress

Tell = Callable[[str], None]
_LOCAL = ("json", "csv", "parquet", "text", "arrow", "pandas")  # what a task's data set is, where it has files
_NAMES = "`lm_eval ls tasks` lists the names; --tasks-path names a folder of your own"
# By the name of a measure's aggregation: nats or figures, and weights, of an example's value.
_SINGLE: Mapping[str, Callable[[Any], tuple[float, float]]] = {
    "mean": lambda value: (float(value), 1.0),
    "perplexity": lambda value: (-float(value), 1.0),
    "weighted_perplexity": lambda value: (-float(value[0]), float(value[1])),
    "bits_per_byte": lambda value: (-float(value[0]) / math.log(2), float(value[1])),
}
_OFFLINE = "set HF_HUB_OFFLINE=1 if the data is in the local cache, or name task files with local data by --tasks-path"
_PERPLEXITIES = ("perplexity", "weighted_perplexity")


@dataclass(frozen=True, eq=False)
class HarnessTasks:
    """Tasks that are loaded, with their data."""

    tasks: Sequence[Any]  # `lm_eval.api.task.Task`
    manager: Any  # `lm_eval.tasks.TaskManager`
    limit: int | None = None  # examples of each; None takes all
    tell: Tell = lambda line: None
    chat: bool = False  # prompts are conversations, written by the model's chat template

    def require(self, model: LanguageModel) -> None:
        """Raises `SettingsError` for a model whose tokenizer has no chat template, where one is asked for."""
        if self.chat and not template_of(model.tokenizer):
            raise SettingsError(f"--tasks-chat: {model.spec.name} has no chat template", hint="leave it out")

    def measure(
        self, model: LanguageModel, batch_size: int, on_batch: Progress = no_progress
    ) -> tuple[TaskMeasure, ...]:
        """Every measure of every task under the adapter that is loaded.

        Raises `AdapterError` when a score is not finite, `DataError` when a task fails.
        """
        from lm_eval import simple_evaluate

        from fccl.evaluation.harness_model import HarnessModel

        asks = [task.task_name for task in self.tasks if _asks_for_greedy(task)]
        with _in_silence(", ".join(task.task_name for task in self.tasks)):
            found = simple_evaluate(
                model=HarnessModel(model, batch_size, asks, on_batch),
                tasks=list(self.tasks),
                task_manager=self.manager,
                limit=self.limit,
                apply_chat_template=self.chat,
                fewshot_as_multiturn=self.chat,
                bootstrap_iters=0,  # ours is paired
                random_seed=None,
                numpy_random_seed=None,
                torch_random_seed=None,
            )
        return tuple(measure for task in self.tasks for measure in self._measures(task, found))

    def _measures(self, task: Any, found: Mapping[str, Any]) -> Iterator[TaskMeasure]:
        """The measures that are figures of single examples; the others are named and left out."""
        name, samples = task.task_name, sorted(found["samples"][task.task_name], key=lambda row: row["doc_id"])
        for chosen in dict.fromkeys(row["filter"] for row in samples):
            rows = [row for row in samples if row["filter"] == chosen]
            for metric in rows[0]["metrics"]:
                kind = getattr(task.aggregation().get(metric), "__name__", "")
                if kind not in _SINGLE:
                    self.tell(f"{name}: {metric} is no figure of single examples, so it has no interval: left out.")
                    continue
                values, weights = np.array([_SINGLE[kind](row[metric]) for row in rows], dtype=np.float64).T
                yield TaskMeasure(
                    task=name,
                    version=str(found["versions"].get(name, "")),
                    shots=int(found["n-shot"].get(name) or 0),
                    measure=metric if chosen == "none" else f"{metric}, {chosen}",
                    higher_is_better=bool(found["higher_is_better"].get(name, {}).get(metric, True)),
                    is_perplexity=kind in _PERPLEXITIES,
                    values=values,
                    weights=weights,
                )


def load_tasks(
    names: Sequence[str],
    folder: Path | None = None,
    limit: int = 0,
    tell: Tell = lambda line: None,
    chat: bool = False,
) -> HarnessTasks:
    """The tasks of these names, with their data; `folder` holds task files beside those of the harness.

    Takes at most `limit` examples of each; 0 takes all. With `chat` their prompts go through the model's chat template.
    Raises `SettingsError` for a name that is not known and where
    the extra is missing, `DataError` for data that cannot be had.
    """
    require_extra("lm-eval", "--tasks")
    if folder is not None and not folder.is_dir():
        raise SettingsError(f"--tasks-path {folder}: there is no such folder", hint="name a folder with task files")
    manager = _manager(names, folder)
    _require_hub(names, manager.task_index)
    with _in_silence(", ".join(names)):
        tasks = list(manager.load(list(names))["tasks"].values())
    for task in tasks:
        if task.OUTPUT_TYPE == "generate_until" and (task.config.generation_kwargs or {}).get("do_sample"):
            raise SettingsError(f"{task.task_name} draws its answers at random; greedy tasks can be compared")
    return HarnessTasks(tasks, manager, limit or None, tell, chat)


def _manager(names: Sequence[str], folder: Path | None) -> Any:
    """Of the folder's tasks; and of the harness's own where a name is not among them, since these take a while."""
    from lm_eval.tasks import TaskManager

    with _in_silence("the task files"):
        if folder is not None:
            manager = TaskManager(include_path=folder, include_defaults=False)
            if set(names) <= set(manager.all_tasks):
                return manager
        manager = TaskManager(include_path=folder)
    for name in names:
        if name not in manager.all_tasks:
            raise SettingsError(f"--tasks: there is no task {printable(name, 80)}", hint=_NAMES)
    return manager


def _require_hub(names: Sequence[str], index: Mapping[str, Any]) -> None:
    """Raises `DataError` where a task's data is on the hub and the hub does not answer."""
    if (path := _first_on_hub(names, index)) is None:
        return
    try:
        ask_hub(path)
    except DataError as error:
        raise DataError(f"--tasks {', '.join(names)}: {error}", hint=_OFFLINE) from error


def _first_on_hub(names: Sequence[str], index: Mapping[str, Any]) -> str | None:
    """The first data set on the hub that these tasks, groups and tags ask for; None without any."""
    waiting, seen = list(names), set[str]()
    while waiting:
        name = waiting.pop(0)
        if name in seen or name not in index:
            continue
        seen.add(name)
        config = index[name].cfg or {}
        path = config.get("dataset_path")
        if isinstance(path, str) and path not in _LOCAL and not Path(path).exists():
            return path
        members = config.get("task")
        waiting += [each for each in members if isinstance(each, str)] if isinstance(members, list) else []
        waiting += sorted(index[name].tags) if index[name].cfg is None else []  # a tag
    return None


def _asks_for_greedy(task: Any) -> bool:
    return task.OUTPUT_TYPE == "loglikelihood" or "exact_match" in task.aggregation()


@contextlib.contextmanager
def _in_silence(what: str) -> Iterator[None]:
    """No bars and no advice of the harness; an error of it as one `DataError`."""
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    except FcclError:
        raise
    except Exception as error:  # of the harness, of `datasets`, of a task's own code: no base is common to them
        said = printable(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__, 300)
        raise DataError(f"--tasks {what}: {said}", hint="the task's own files or data are at fault") from error
