"""`Courier`: carries the open request of an exchange directory to the sites by a Grid, and their answers back."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from flwr.app import Message, MessageType
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from fccl.display.plain_text import printable
from fccl.errors import FcclError, UpdateRejected
from fccl.paths import ExchangePaths
from fccl.records.run import ClientStatus
from fccl.storage.files import write_bytes
from fccl.transports.flower.contents import Content
from fccl.transports.flower.errand import Errand
from fccl.transports.flower.known import Known
from fccl.transports.flower.lost import LOST_S, LostMessages
from fccl.transports.flower.node_keys import NodeKeys
from fccl.transports.flower.nodes import Nodes
from fccl.transports.flower.parcel import Parcel
from fccl.transports.flower.replies import SiteReplies
from fccl.transports.flower.site_log import SiteLog

POLL_S = 0.5  # between two looks at the SuperLink
NODES_S = 120.0  # so long is a site awaited that has no SuperNode online
_MOST_FAILURES = 3  # of one client's messages in a request; after that it is given up
_MOST_VANISHED = 20  # of one client's answers in a request, on their way: no fault of its site
_MOST_ERRORS = 20  # of the grid, one after another, before no message is sent any more
_END_S = 30.0  # so long are sites told that the run is done
_MARGIN_S = 60.0  # by which a message lives longer than its answer is awaited


@dataclass(frozen=True)
class _Sent:
    client_id: int
    node: int
    errand: Errand
    laid: Mapping[str, Content]  # the files that its site has once it answers
    left_out: frozenset[str]  # those of them whose bytes were not sent


class Courier:
    """Works in a thread of its own from `__enter__` to `__exit__`; no other thread may use the grid meanwhile.

    A site that cannot be reached, or whose messages fail, is no error: `trouble` says why. While the SuperLink does not
    answer everything waits, as long as the round does. With `keys` a site is known by its node key. `sites` is told
    what was carried, and who is there.
    """

    def __init__(
        self,
        grid: Grid,
        paths: ExchangePaths,
        poll_s: float = POLL_S,
        nodes_s: float = NODES_S,
        keys: NodeKeys | None = None,
        lost_s: float = LOST_S,
        sites: SiteLog | None = None,
    ) -> None:
        self._grid, self._paths, self._poll_s, self._nodes_s = grid, paths, poll_s, nodes_s
        self._nodes, self._lost, self._sites = Nodes(grid, keys, lost_s), LostMessages(grid, lost_s), sites
        self._replies, self._known = SiteReplies(grid), Known(paths)
        self._errand: Errand | None = None
        self._sent: dict[str, _Sent] = {}  # by message
        # messages that were taken for lost; a slow pull may bring a reply all the same
        self._late: dict[str, _Sent] = {}
        self._failures: dict[int, list[str]] = {}  # by client: the reasons
        self._vanished: dict[int, int] = {}  # by client: how many of its answers have never come whole
        self._unseen: dict[int, float] = {}  # by client: since when no node says that it is its site
        self._ended = ""  # why no message can be sent any more
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(work, pause), name=f"flower {name}", daemon=True)
            for name, work, pause in (("courier", self.turn, poll_s), ("heartbeat", self._beat, 1.0))
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(5.0)  # a grid that waits for its SuperLink is not waited for
        with suppress(FcclError):  # of the disk
            self._write_sites()

    def begin(self, run_id: str) -> None:
        """Ask the nodes whose sites they are, for this run."""
        self._nodes.run_id = run_id

    @contextmanager
    def carrying(self, errand: Errand) -> Iterator[None]:
        """Carry this while the block runs. Failures are counted anew."""
        self.begin(errand.run_id)
        if self._sites is not None:
            self._sites.begin(errand.run_id)
        with self._lock:
            self._failures, self._vanished, self._unseen = {}, {}, {}
            self._errand = errand
        try:
            yield
        finally:
            self._errand = None

    def tell_the_end(self, errand: Errand) -> None:
        """Carry the end of the run to its sites, and to whoever else is online, for a while.

        A site that is away just now may come back meanwhile.
        """
        errand = replace(errand, client_ids=tuple(sorted({*errand.client_ids, *self._nodes.places})))
        given_up = frozenset(each for each in errand.client_ids if self.trouble(each))
        end = time.monotonic() + _END_S
        with self.carrying(errand):
            while any(self._may_hear(errand, each, given_up) for each in errand.client_ids):
                if time.monotonic() > end:
                    return
                self._stop.wait(self._poll_s)

    def _may_hear(self, errand: Errand, client_id: int, given_up: frozenset[int]) -> bool:
        """Whether a site that was here, or may be about to say that it is, has not heard the errand yet."""
        if not errand.waits_for(client_id) or self.trouble(client_id):
            return False
        is_known = client_id in self._nodes.seen and client_id not in given_up
        return is_known or client_id in self._nodes.places or self._nodes.is_coming(client_id)

    def trouble(self, client_id: int) -> str:
        """The reason why a client's answer need not be awaited; empty where it may still come."""
        if self._ended:
            return self._ended
        reasons = self._failures.get(client_id, [])
        if len(reasons) >= _MOST_FAILURES:
            return f"its site has failed {len(reasons)} times: {reasons[-1]}"
        if (times := self._vanished.get(client_id, 0)) >= _MOST_VANISHED:
            return f"its answer was lost on the way {times} times"
        since = self._unseen.get(client_id)
        too_long = since is not None and time.monotonic() - since > self._nodes_s
        if too_long and not self._nodes.is_coming(client_id):
            doubt = self._nodes.doubts.get(client_id, "")
            said = f"no SuperNode has said for {self._nodes_s:g} s that it is the site of client {client_id}"
            return f"{said}: {doubt}" if doubt else said
        return ""

    def turn(self) -> None:
        """One look at the SuperLink: who is there, what has come, what is to be sent."""
        self._nodes.look()
        self._known.only(self._nodes.places)
        self._receive()
        if (errand := self._errand) is not None:
            places = self._nodes.places
            under_way = {(each.client_id, each.node, each.errand) for each in self._sent.values()}
            for client_id in errand.client_ids:
                self._send(errand, client_id, places.get(client_id), under_way)
        self._lost.ask()

    def _receive(self) -> None:
        sent = {message_id: each.node for message_id, each in self._sent.items()}
        for reply in self._replies.to({**sent, **self._nodes.open_questions, **self._lost.open_questions}):
            if not self._nodes.hear(reply) and not self._lost.hear(reply):
                self._take(reply)
        for message_id in self._lost.lost(self._sent):
            self._late[message_id] = self._sent.pop(message_id)
            self._leave_nothing_out(self._late[message_id])

    def _take(self, reply: Message) -> None:
        """Take a site's answer; it belongs to the message that it replies to, whoever claims to have sent it."""
        message_id = reply.metadata.reply_to_message_id
        late = self._late.pop(message_id, None)
        sent = late or self._sent.pop(message_id, None)
        if sent is None or (late and not (reply.has_content() and late.errand.waits_for(late.client_id))):
            return  # what is late was sent again
        if reply.has_error() and reply.error.code == ErrorCode.MESSAGE_UNAVAILABLE:
            self._failed(sent)
            return
        try:
            answer = _answer(reply)
            self._count(sent.client_id, sent.errand, up=answer.length)
            if answer.missing:
                self._send_whole(sent, answer.missing)
            else:
                sent.errand.take(sent.client_id, answer)
                self._known.answered(sent.client_id, sent.node, sent.laid)
        except FcclError as error:  # of the answer, or of the disk
            if reply.has_error():
                self._leave_nothing_out(sent)
            self._failed(sent, printable(str(error), 500))

    def _send_whole(self, sent: _Sent, missing: Collection[str]) -> None:
        """Leave nothing out for this client any more, as its site has not all that was left out: no failure of its own.

        Raises `UpdateRejected` where the files were sent.
        """
        if not set(missing) <= sent.left_out:
            raise UpdateRejected(f"its site misses files that it was sent: {printable(str(sorted(missing)), 300)}")
        self._leave_nothing_out(sent)

    def _leave_nothing_out(self, sent: _Sent) -> None:
        """Send this client every byte from now on in the errand, if its message left some out.

        A site's process may also have died in decoding them, of memory or of its processor: the next one would too.
        """
        if sent.left_out:
            self._known.forget(sent.client_id)
            sent.errand.whole.add(sent.client_id)

    def _failed(self, sent: _Sent, reason: str = "") -> None:
        """Count a failure of a site in the open errand; without a reason its answer was lost on the way."""
        with self._lock:
            if sent.errand is not self._errand:  # of one that is over
                return
            if reason:
                self._failures.setdefault(sent.client_id, []).append(reason)
            else:
                self._vanished[sent.client_id] = self._vanished.get(sent.client_id, 0) + 1

    def _send(
        self, errand: Errand, client_id: int, node: int | None, under_way: Collection[tuple[int, int, Errand]]
    ) -> None:
        """Send a client's site the errand, unless it has it. One that has a new node since is sent it again."""
        with self._lock:
            if node is None:
                self._unseen.setdefault(client_id, time.monotonic())
            else:
                self._unseen.pop(client_id, None)
        if node is None or (client_id, node, errand) in under_way or self.trouble(client_id):
            return
        if (
            not errand.waits_for(client_id)
            or (parcel := errand.parcel(client_id, self._known.of(client_id, node))) is None
        ):
            return
        ttl = errand.wait_s + _MARGIN_S
        message = Message(parcel.record(), node, MessageType.TRAIN, ttl=ttl, group_id=str(errand.round))
        for message_id in self._grid.push_messages([message]):
            if message_id:
                self._sent[message_id] = _Sent(client_id, node, errand, parcel.contents, frozenset(parcel.held))
                self._lost.sent(message_id, node)
                self._count(client_id, errand, down=parcel.length)

    def _count(self, client_id: int, errand: Errand, down: int = 0, up: int = 0) -> None:
        if self._sites is not None:
            self._sites.carried(client_id, errand.round, down, up)

    def _beat(self) -> None:
        """Write how the sites are, and the heartbeats of clients at work: their own heartbeats stay at the sites."""
        self._write_sites()
        for sent in list(self._sent.values()):
            errand = sent.errand
            if errand is self._errand and errand.kind != "done" and sent.node in self._nodes.online:
                status = ClientStatus(
                    client_id=sent.client_id,
                    state="training" if errand.kind == "fit" else "evaluating",
                    run_id=errand.run_id,
                    round=errand.round,
                    phase=errand.phase,
                    host=socket.gethostname(),
                    time=time.time(),
                )
                write_bytes(self._paths.status(sent.client_id), f"{status.model_dump_json()}\n".encode())

    def _write_sites(self) -> None:
        if self._sites is not None:
            self._sites.look(self._nodes.seen, frozenset(self._nodes.places), self.trouble)

    def _repeat(self, work: Callable[[], None], pause_s: float) -> None:
        errors = 0  # one after another
        while not self._stop.is_set():
            try:
                work()
                errors = 0
            except FcclError:  # of the disk: the exchange directory's own side meets it too, and says so
                pass
            except Exception as error:  # of the grid: a run that was stopped, a SuperLink that has forgotten it
                errors += 1
                if errors >= _MOST_ERRORS:
                    self._ended = f"the SuperLink takes no more messages: {printable(repr(error), 300)}"
                    return
            self._stop.wait(pause_s)


def _answer(reply: Message) -> Parcel:
    """The parcel in a reply. Raises `UpdateRejected` with the reason when there is none."""
    if reply.has_error():
        error = reply.error
        said = f": {printable(error.reason.splitlines()[0], 300)}" if error.reason else ""
        if error.code == ErrorCode.LOAD_CLIENT_APP_EXCEPTION:
            said += "; FCCL must be installed there beside Flower, and the SuperNode's log says what is missing"
        raise UpdateRejected(f"Flower reports error {error.code}{said}")
    parcel = Parcel.of_record(reply.content)
    if parcel.problem:
        raise UpdateRejected(parcel.problem)
    if parcel.held:
        raise UpdateRejected(f"the answer leaves out {printable(str(sorted(parcel.held)), 300)}")
    return parcel
