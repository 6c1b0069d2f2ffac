"""A Flower app that had FedAvg, with FCCL's contribution weights in its place: two lines differ.

    python examples/flower_app.py        needs pip install "fccl[flower]" ray

Three clients fit a line to points of their own; the third one's points are noise. Its loss is large, and its weight is
small.
"""

import os

os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.simulation import run_simulation

from fccl.contribution.reported import ContributionRule
from fccl.flower import FCCL

client, server = ClientApp(), ServerApp()


@client.train()
def train(message, context):
    """Ten steps of gradient descent on the mean squared error of a line."""
    number = context.node_config["partition-id"]
    draw = np.random.default_rng(number)
    x = draw.uniform(-1, 1, 40)  # (points,)
    y = draw.normal(0, 3, 40) if number == 2 else 2 * x + 1 + draw.normal(0, 0.1, 40)
    line = message.content["arrays"]["line"].numpy()  # slope and offset: (2,)
    for _ in range(10):
        error = line[0] * x + line[1] - y
        line = line - 0.3 * np.array([(error * x).mean(), error.mean()])
    loss = float(((line[0] * x + line[1] - y) ** 2).mean())
    arrays = ArrayRecord({"line": Array(line.astype(np.float32))})
    metrics = MetricRecord({"num-examples": len(x), "train_loss": loss})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@server.main()
def main(grid, context):
    rule = ContributionRule(source="loss_inverse", temperature=0.5)
    strategy = FCCL(rule=rule, fraction_evaluate=0.0, min_train_nodes=3, min_available_nodes=3)
    start = ArrayRecord({"line": Array(np.zeros(2, np.float32))})
    result = strategy.start(grid=grid, initial_arrays=start, num_rounds=2)
    slope, offset = result.arrays["line"].numpy()
    weights = " ".join(f"{weight:.2f}" for weight in sorted(strategy.weights))
    print(f"slope {slope:.2f}, offset {offset:.2f}; weights {weights}")


if __name__ == "__main__":
    run_simulation(
        server,
        client,
        num_supernodes=3,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"num_cpus": 1}},
    )
