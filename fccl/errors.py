"""Every error that FCCL raises on purpose.

    FcclError
      SettingsError     a setting is unknown, malformed or out of range
      DataError         a data source cannot be used
        BadRow          one row of it: file, line, what is wrong
      ModelError        the base model or its LoRA targets cannot be had
      AdapterError      an adapter is not one, or does not fit another
      TrainingError     a client's local training diverged
      PhaseDeclined     a client takes no part in a phase: its answer, and no failure
      UpdateRejected    a client's answer does not answer its task
        ForeignAnswer   it is not even this client's answer: of another run, round or sender
        NotAFile        something else is where a file of it belongs, or nothing
      FederationError   the run cannot go on (too few clients); its state is resumable
        BadAggregate    what a rule makes of a round's updates is nothing to go on with
      StorageError      the disk is full, read-only or not there, or a file on it is not what it was
      OutputError       nobody takes what the command prints

A message is one line and says what is wrong; `hint` says the way out. The command line prints both and no traceback.
Errors of the libraries below (OSError, ValueError of torch, transformers, pydantic) are turned into these at one
boundary each.
"""

from __future__ import annotations

from pathlib import Path

DIVERGED = "training diverged"  # a reason that begins so would come back if the run went on with the same settings
LOWER_RATE = (
    "a lower learning rate (--sft-lr, --va-lr) is the usual cure; a run keeps its settings, so it takes a new run"
)


class FcclError(Exception):
    """Something that a user can mend. `hint`, if any, is the way out.

    `resumable` says whether a run that this has stopped may get further when it is resumed, with the settings that it
    has.

    >>> import fccl
    >>> try:
    ...     fccl.FederatedRun(fed_round=3)
    ... except fccl.FcclError as error:
    ...     print(error, "/", error.hint)
    unknown setting FED_ROUND / did you mean FED_ROUNDS?
    """

    def __init__(self, message: str, hint: str = "", resumable: bool = True) -> None:
        super().__init__(message)
        self.hint, self.resumable = hint, resumable
        if hint:
            self.add_note(f"hint: {hint}")  # for those who see a traceback, as in a notebook


class SettingsError(FcclError):
    """A setting is unknown, malformed or out of range."""


class DataError(FcclError):
    """A data source cannot be used."""


class BadRow(DataError):
    """One row of a data file is malformed."""

    def __init__(self, source: str, line: int, what: str, hint: str = "") -> None:
        leave = "mend the row, or pass --skip-bad-rows to leave such rows out and count them"
        super().__init__(f"{source}:{line}: {what}", hint=f"{hint}; or {leave}" if hint else leave)
        self.source, self.line, self.what = source, line, what


class ModelError(FcclError):
    """The base model or its LoRA targets cannot be had."""


class AdapterError(FcclError):
    """A file or a mapping is not an adapter, or two adapters do not fit together."""


class TrainingError(FcclError):
    """A client's local training diverged."""


class PhaseDeclined(FcclError):
    """A client takes no part in a phase. Its answer says so: nobody waits for it, and it is no failure."""


class UpdateRejected(FcclError):
    """A client's answer does not answer its task."""


class ForeignAnswer(UpdateRejected):
    """Not this client's answer: of another run, another round, or not signed by it. The client's own may still come."""


class NotAFile(UpdateRejected):
    """Something else is where a file belongs, or nothing: no client that follows the protocol has put it there."""


class FederationError(FcclError):
    """The run cannot go on; what is complete is kept and can be resumed."""


class BadAggregate(FederationError):
    """The aggregate of a round's updates is nothing to go on with: too large, or the server's model has no finite loss
    under it.
    """


class StorageError(FcclError):
    """The disk is full, read-only or not there, or a file on it is not what it was."""


class OutputError(FcclError):
    """Nobody takes what the command prints: its reader is gone, or the disk that it goes to is full."""


def no_run(folder: Path, to: str) -> FederationError:
    """The error where a run was to be resumed, evaluated, exported or reported, and none is there."""
    hint = "start one with `fccl run`, or name the folder with --log-dir"
    return FederationError(f"{folder} holds no run to {to}", hint=hint)
