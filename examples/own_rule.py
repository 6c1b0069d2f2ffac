"""A contribution rule of one's own, compared with ours on the same data; client 0's answers are shuffled on purpose.

    python examples/own_rule.py

A verdict takes several seeds and intervals:

    PYTHONPATH=examples fccl compare --quick --methods fedavg,verified,own_rule:HalvingLoss
"""

import math

import fccl


class HalvingLoss:
    """A client's weight doubles for every `contribution_temperature` nats that its adapter alone lowers the loss on the
    server's learn split.

    The constructor's arguments are settings, by their names; `loss` is the loss of any adapter on that split.
    """

    def __init__(self, loss, contribution_temperature: float = 1.0) -> None:
        self.loss, self.temperature = loss, contribution_temperature

    def weigh(self, task: fccl.FitTask, updates: list[fccl.ClientUpdate]) -> fccl.Weighing:
        losses = [self.loss.loss(task, update.adapter.load()) for update in updates]
        scores = tuple(-loss / self.temperature if math.isfinite(loss) else -100.0 for loss in losses)
        doubled = [2.0 ** (score - max(scores)) for score in scores]
        return fccl.Weighing(tuple(each / math.fsum(doubled) for each in doubled), scores)


def main() -> None:
    data = fccl.prepare(num_clients=3, noisy_clients="0", data_dir="data-noisy")
    sources: dict[str, str | type] = {"FCCL (verified)": "verified", "halving loss": HalvingLoss}
    for name, source in sources.items():
        run = fccl.FederatedRun(data, log_dir=f"logs-{name.split()[0].lower()}", contribution_source=source)
        for result in run:
            record = result.record
            noisy = dict(zip(record.clients, record.weights, strict=True)).get(0, 0.0)
            loss = record.validation.loss
            print(f"{name}, round {record.round + 1} ({record.phase}): loss {loss:.3f}, weight of client 0 {noisy:.2f}")


if __name__ == "__main__":
    main()
