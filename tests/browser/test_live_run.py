"""A real federation over an exchange directory, watched from before it begins until it is evaluated.

No round can end before the page has shown it. Each needs all three clients, and one of them is held back until its
sentence is on the page. Before that one goes on, another is halted, which has answered the open round and is needed
in the next.
"""

from __future__ import annotations

import pytest

from fccl.paths import ExchangePaths

pytestmark = pytest.mark.browser

CLIENTS, CLIENTS_NOW = 3, "What each client is doing"
SETTINGS = {
    "MAX_SFT_EXAMPLES": "500",
    "MAX_VA_EXAMPLES": "250",
    "TEST_EXAMPLES": "40",
    "VALIDATION_EXAMPLES": "24",
    "FED_ROUNDS": "2",
    "THREADS": "1",
    "BOOTSTRAP_SAMPLES": "200",
    "GEN_SAMPLES": "2",
    "HEARTBEAT_S": "0.3",
    "HEARTBEAT_STALE_S": "10",
    # a round waits for clients that are halted or killed: it is tried again until all three have answered
    "MIN_CLIENTS": str(CLIENTS),
    "ROUND_RETRIES": "1000",
}
ROUNDS = (
    "Round 1 of 4, instruction phase",
    "Round 2 of 4, instruction phase",
    "Round 3 of 4, preference phase",
    "Round 4 of 4, preference phase",
)
REMEMBER = """() => {
    window.said = [];
    new MutationObserver(() => window.said.push(document.querySelector('h1.fccl-sentence')?.textContent ?? ''))
        .observe(document.body, {subtree: true, childList: true, characterData: true});
}"""
HEARD = """table => {
    const cells = [...document.querySelectorAll(`[aria-label='${table}'] [role=row][aria-rowindex='3'] [role=gridcell]`)];
    return cells[0]?.textContent === '1' && !cells.some(cell => cell.textContent === 'never');
}"""
ALERTS = """([of, not_of]) => {
    const lines = [...document.querySelectorAll('.fccl-alert')].map(line => line.textContent);
    return lines.some(line => line.includes(of)) && !lines.some(line => line.includes(not_of));
}"""


def test_a_run_from_nothing_to_its_evaluation(processes, visit):
    processes.settings.update(SETTINGS)
    processes.finished("prepare")
    flag = ExchangePaths(processes.folder / "exchange").flag

    here = visit(processes.dashboard())
    assert here.sentence == "No run in logs/ yet."
    here.page.evaluate(REMEMBER)

    # the first round waits for client 0, which has not started
    first, last = (processes.start("client", "--client-id", number) for number in "12")
    processes.start("orchestrator")
    here.until_sentence(ROUNDS[0])
    here.until("() => document.title === '1/4 · FCCL'")
    here.page.get_by_role("tab", name="Clients", exact=True).wait_for()

    # client 1 is killed in the second round: it is marked, the others are not, and the round waits
    processes.halt(first, after=flag(1, 0))
    held = processes.start("client", "--client-id", "0")
    here.until_sentence(ROUNDS[1])
    here.until(HEARD, CLIENTS_NOW)
    first.kill()
    first.wait()
    here.until(ALERTS, ["Client 1: no heartbeat", "Client 0: no heartbeat"])
    here.until_cell(CLIENTS_NOW, 1, "✕ no heartbeat")
    here.until("() => document.querySelector('.st-key-tiles').textContent.includes('1 without heartbeat')")

    # it comes back, and the rounds go on, without the page being loaded again
    processes.halt(held, after=flag(0, 1))
    processes.start("client", "--client-id", "1")
    here.until_sentence(ROUNDS[2])
    processes.halt(last, after=flag(2, 2))
    processes.go_on(held)
    here.until_sentence(ROUNDS[3])
    processes.go_on(last)
    here.until_sentence("Finished: all 4 rounds complete.", patience_s=300.0)
    said = here.page.evaluate("() => window.said")
    assert [begin for begin in ROUNDS if not any(sentence.startswith(begin) for sentence in said)] == []
    here.until("() => document.querySelectorAll('[data-testid=stVegaLiteChart] svg').length === 4")

    # and its evaluation
    here.until("() => document.querySelector('h1.fccl-sentence').textContent === 'Finished: all 4 rounds complete.'")
    here.open("Evaluation")
    measures = here.page.get_by_role("table", name="Measures of every model on the test split")
    measures.wait_for()
    assert measures.get_by_role("columnheader").all_inner_texts() == ["measure", "base", "SFT", "FedVA"]
    assert measures.get_by_role("row", name="exact answers").count() == 1
    assert here.page.evaluate("() => window.said.length") >= len(said), "nothing has loaded the page anew"
