"""The screen of a run: what the server's own training looks like."""

from io import StringIO
from pathlib import Path

from rich.console import Console

from fccl.apps.progress import round_line, screen_for
from fccl.messages import ClientFailure
from fccl.records.run import ClientStatus, ServerLearning
from fccl.records.secure import SecureRound
from fccl.specs import RoundPlan
from tests.view.logs import BASE, Logs

PLAN = RoundPlan(fed_rounds=2, num_clients=3, clients_per_round=3, seed=0)
RECORD = Logs(Path("logs")).record(0)
LEARNED = ServerLearning(
    examples=48, epochs=1, steps=6, avg_loss=2.0, before=BASE, aggregate_sha256="ab" * 32, seconds=1.5
)


def test_a_rounds_line_has_the_loss_before_the_server_learned():
    plain = round_line(RECORD, PLAN).plain
    assert "validation loss 3.000 nats/token; " in plain
    said = round_line(RECORD.model_copy(update={"learning": LEARNED}), PLAN).plain
    assert "validation loss 3.000 nats/token (6.500 before the server learned from 48 examples in 1.5 s); " in said
    unwatched = LEARNED.model_copy(update={"before": None})
    assert (
        "(after the server learned from 48" in round_line(RECORD.model_copy(update={"learning": unwatched}), PLAN).plain
    )


def test_a_rounds_line_of_a_secure_sum_has_the_number_of_its_clients_and_no_weight():
    secure = SecureRound(clients=(0, 2), dropped=(1,), cohort=3, threshold=2, bound=10.0, most=1, bits=20)
    bare = {"clients": (), "weights": (), "scores": (), "contributions": (), "secure": secure}
    said = round_line(RECORD.model_copy(update=bare), PLAN).plain
    assert "; secure sum of 2 clients; " in said
    assert "weights" not in said
    false = secure.model_copy(update={"false_shares": (0, 2)})
    said = round_line(RECORD.model_copy(update=bare | {"secure": false}), PLAN).plain
    assert "; secure sum of 2 clients, a false share by client 0, client 2 left out; " in said


def test_the_bar_says_that_it_is_the_server_that_trains():
    console = Console(file=StringIO(), force_terminal=True, width=100)
    status = ClientStatus(client_id=0, state="training", run_id="run", round=0, phase="sft", step=3, steps=6, loss=1.5)
    with screen_for(console, PLAN, "") as screen:
        screen.started(None, None)
        screen.learning(status)
        assert screen.bars.tasks[1].description == "the server step 3/6"
        assert screen.bars.tasks[0].completed == 0  # it is no client's answer
        screen.status(status)
        assert screen.bars.tasks[1].description == "client 0 step 3/6"


def test_the_bars_add_up_the_clients_that_train_beside_each_other():
    console = Console(file=StringIO(), force_terminal=True, width=100)

    def status(client, step, loss=1.0):
        said = {"step": step, "steps": 8, "loss": loss, "tokens_per_second": 10.0}
        return ClientStatus(client_id=client, state="training", run_id="run", round=0, phase="sft", **said)

    with screen_for(console, PLAN, "") as screen:
        screen.started(None, None)
        for heard in (status(2, 3, loss=2.0), status(0, 1), status(0, 2)):
            screen.status(heard)
        whole, clients = screen.bars.tasks
        assert clients.description == "clients 0, 2 step 5/16"
        assert (clients.fields["loss"], clients.fields["speed"]) == (1.5, 20.0)
        assert whole.completed == clients.completed * 2 == 5 / 8
        screen.answer(ClientFailure(2, "why"))
        assert whole.completed == 1
        screen.status(status(0, 3))
        assert (whole.completed, clients.description) == (1.375, "client 0 step 3/8")
