"""`fccl forget`: a client taken out of a finished run, and what is left of it measured."""

from __future__ import annotations

import argparse

from fccl.apps.consent import require_consent
from fccl.apps.console import plain_console, telling
from fccl.apps.terminal_tables import print_table
from fccl.config import Settings
from fccl.display import words
from fccl.library.forgetting import Forgetting
from fccl.library.past_run import at_work, past_run
from fccl.view.after import forgotten_table


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Train anew without the client, measure, and remove its files. Returns the exit status."""
    console, given = plain_console(), options.given
    tell, past = telling(console), past_run(settings.log_dir, options.run, "change", given)
    with at_work(past, past.settings, settings.data_dir if "data_dir" in given else None) as work:
        forgetting = Forgetting(work, options.client)
        tell(prediction(forgetting))
        if options.predict:
            return 0
        require_consent(_removal(forgetting), options.yes)
        record, adapter = forgetting.run(lambda model, result: tell(f"{model}: round {result.record.round + 1} done"))
        print_table(console, forgotten_table(record))
        forgetting.write(record, adapter)
    tell(f"Removed, {words.plural(len(record.removed), 'file')}: {', '.join(record.removed) or 'none'}.")
    tell(f"Made with its updates and still there: {', '.join(record.still)}. They go with the run's folder alone.")
    where = past.after.forgotten(record.client_id)
    tell(f"The run without client {record.client_id}: {where}/ (adapter/ in PEFT's format).")
    return 0


def prediction(forgetting: Forgetting) -> str:
    """The training that lies ahead, and how long it takes."""
    first, total = forgetting.first, forgetting.work.past.state.total_rounds
    took = words.about(forgetting.prediction())
    client = f"client {forgetting.client_id}"
    if first == 0:
        return f"{client} was there from round 1: all {words.are(total, 'round')} trained anew without it, {took}."
    anew = f"rounds {first + 1} to {total} are trained anew without it"
    if first + 1 == total:
        anew = f"round {total} is trained anew without it"
    return f"{client} came in round {first + 1}: {anew}, and beside them a run that never had it, {took} in all."


def _removal(forgetting: Forgetting) -> str:
    """The files that go at the end, for the question."""
    files = words.plural(len(forgetting.files), "file")
    return f"then {files} of client {forgetting.client_id} in {forgetting.work.past.logs.root}/ removed for good"
