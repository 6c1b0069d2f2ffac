"""The ClientApp of a site: a bridge to the site's worker, `fccl client`, over an exchange directory of the site's own.

It is started anew for every message, so it loads no torch: the worker is warm. A message with an adapter in few bytes
is the exception. A SuperNode says whose site it is:

    flower-supernode --node-config 'client-id=2 exchange-dir="/srv/site"'
"""

from __future__ import annotations

from collections.abc import Callable
from logging import WARNING
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore import log

from fccl.display.plain_text import printable
from fccl.errors import FcclError, SettingsError
from fccl.paths import ExchangePaths
from fccl.transports.flower.parcel import Parcel
from fccl.transports.flower.site import NoAnswer, Site

CLIENT_ID, EXCHANGE_DIR = "client-id", "exchange-dir"  # of the node's configuration
RUN_ID = "run-id"  # in a question: the federation's run, which may take several of Flower's


def client_app(site_of: Callable[[Context], Site]) -> ClientApp:
    """The ClientApp whose site is what this says of its node."""
    app = ClientApp()

    @app.query()
    def who(message: Message, context: Context) -> Message:
        """The number of this site's client. Files of a run before the asking one are cleared away."""
        site, asks = site_of(context), message.content.get("run")
        if isinstance(asks, ConfigRecord) and isinstance(run_id := asks.get(RUN_ID), str):
            site.begin(run_id)
        return Message(RecordDict({"site": ConfigRecord({CLIENT_ID: site.client_id})}), reply_to=message)

    @app.train()
    def work(message: Message, context: Context) -> Message:
        """Lay the server's files before the worker, and bring its answer.

        What goes wrong is an answer that says so, and a line in the SuperNode's log.
        """
        try:
            found = carried(site_of(context), Parcel.of_record(message.content, "server"))
        except (FcclError, NoAnswer) as error:
            found = Parcel(problem=printable(str(error), 500))
            log(WARNING, "the server has no answer of this site's: %s", found.problem)
        return Message(found.record(), reply_to=message)

    return app


def carried(site: Site, parcel: Parcel) -> Parcel:
    """The worker's answer to a parcel; an empty one where none is awaited, and the names of what is missing where the
    parcel leaves out what is not here. Raises as `Site.lay` and `Site.wait`.
    """
    if parcel.answer:
        site.require_own(parcel.answer)
    if missing := site.lay(parcel.files, parcel.answer, parcel.refused, parcel.held):
        return Parcel(missing=missing)
    if not parcel.answer:
        return Parcel()
    return Parcel(site.wait(parcel.files, parcel.answer, parcel.wait_s, parcel.stale_s), parcel.answer)


def configured(context: Context) -> Site:
    """The site that the node's configuration names. Raises `SettingsError` when it names none."""
    number, folder = context.node_config.get(CLIENT_ID), context.node_config.get(EXCHANGE_DIR)
    if not isinstance(number, int) or number < 0 or not isinstance(folder, str) or not folder:
        raise SettingsError(
            "the SuperNode does not say whose site it is",
            hint=f"""start it with --node-config '{CLIENT_ID}=2 {EXCHANGE_DIR}="/srv/site"'""",
        )
    return Site(ExchangePaths(Path(folder)), number)


app = client_app(configured)
