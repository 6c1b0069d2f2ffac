"""Clients in processes of their own: what they share is a folder, the exchange directory, and nothing else.

    python examples/own_process.py

On several machines the folder is a mount, each client has its own shard alone, and each runs its line by itself:
`fccl.Client(client_id=i).run()`, or `fccl client --client-id i`. docs/protocol.md says what is safe between them.
"""

import multiprocessing

import fccl


def take_part(client_id: int) -> None:
    """A client process's work: train when asked, until the run is done."""
    fccl.Client(client_id=client_id).run()


def main() -> None:
    data = fccl.prepare(num_clients=2)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["fccl.library.client"])  # so that torch is loaded once, not once a client
    clients = [processes.Process(target=take_part, args=(number,), daemon=True) for number in range(2)]
    for client in clients:
        client.start()
    for result in fccl.Orchestrator(data):
        record = result.record
        print(f"round {record.round + 1}: updates of {record.clients}, excluded {record.excluded or 'none'}")
    for client in clients:
        client.join()


if __name__ == "__main__":
    main()
