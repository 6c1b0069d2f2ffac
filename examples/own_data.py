"""A federation over one's own data: rows from anywhere, written as JSON lines; `topic` says what a row is about.

    python examples/own_data.py

Preference pairs are made from the instructions (`va_data="synthetic"`); a file of pairs has the columns `instruction`,
`preferred` and `dispreferred`. docs/data.md lists every form that is read.
"""

import json
from pathlib import Path

import fccl

CAPITALS = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Norway": "Oslo", "Egypt": "Cairo", "Peru": "Lima"}
COLOURS = {"grass": "green", "snow": "white", "coal": "black", "a lemon": "yellow", "the sky": "blue", "blood": "red"}


def rows() -> list[dict[str, str]]:
    """Your rows: from pandas, `df.to_dict("records")`; from a database, whatever its cursor gives."""
    capitals = [("geography", f"What is the capital of {land}?", f"{city}.") for land, city in CAPITALS.items()]
    colours = [("colours", f"Which colour has {thing}?", f"{colour}.") for thing, colour in COLOURS.items()]
    sums = [("sums", f"What is {a} plus {b}?", f"{a + b}.") for a in range(2, 8) for b in range(2, 8)]
    asked = [*capitals, *colours, *sums]
    return [{"topic": topic, "instruction": question, "response": answer} for topic, question, answer in asked]


def main() -> None:
    file = Path("questions.jsonl")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows()), encoding="utf-8")

    data = fccl.prepare(sft_data=str(file), va_data="synthetic", num_clients=3, non_iid_alpha=0.3, data_dir="data-own")
    print(data.topics("sft"))
    print("Client 0 learns:", data.shard(0).sft[0])

    adapter = fccl.FederatedRun(data, log_dir="logs-own").train()
    print(f"Final adapter: {len(adapter.tensors)} tensors, SHA-256 {adapter.sha256[:16]}…")


if __name__ == "__main__":
    main()
