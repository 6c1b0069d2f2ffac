"""A federation in thirty lines: three clients, instructions then preferences, weights by what each contributes.

    python examples/federation.py

Needs no network. With `FED_ROUNDS=1` in the environment, or any other setting, it is another federation.
"""

import fccl


def main() -> None:
    data = fccl.prepare(num_clients=3, non_iid_alpha=0.5)
    print("Instructions at each client:", data.topics("sft").sum().to_dict())

    run = fccl.FederatedRun(data)
    best = float("inf")
    for result in run:
        record = result.record
        weights = {client: round(weight, 2) for client, weight in zip(record.clients, record.weights, strict=True)}
        print(f"round {record.round + 1} ({record.phase}): validation loss {record.validation.loss:.3f}, {weights}")
        if record.phase == "va" and record.validation.loss > best:
            print("The validation loss rises: stopped early. Start again with resume=True to go on.")
            break
        best = record.validation.loss if record.phase == "va" else best

    for model in run.evaluate().models:
        perplexity = model.perplexity
        print(f"{model.name}: perplexity {perplexity.value:.2f} [{perplexity.low:.2f}, {perplexity.high:.2f}]")
    print(f"Records: {run.log_dir}/. In PEFT's format, after the last round: {run.log_dir}/adapter/")


if __name__ == "__main__":
    main()
