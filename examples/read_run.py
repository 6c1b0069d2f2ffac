"""A finished run in pandas: losses, weights and the evaluation, read from its folder; no torch is loaded.

python examples/read_run.py [LOG_DIR]
"""

import sys

import fccl


def main(log_dir: str) -> None:
    run = fccl.read_run(log_dir)
    print(f"Run {run.run_id}, with {run.info.settings['contribution_source']} contributions")
    print(run.rounds[["phase", "validation_loss", "effective_clients", "seconds"]].round(3))

    print("\nWeight of each client by round:")
    print(run.shares.pivot(index="round", columns="client", values="weight").round(3))

    print("\nTokens that each client has trained on:")
    print(run.metrics.groupby("client")["tokens"].sum())

    if run.evaluation is not None:
        for model in run.evaluation.models:
            print(f"{model.name}: perplexity {model.perplexity.value:.2f}")
    for earlier in fccl.list_runs(log_dir)[1:]:
        print(f"Earlier: {earlier.run_id}; fccl.read_run({log_dir!r}, run_id={earlier.run_id!r}) reads it")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "logs")
