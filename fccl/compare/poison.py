"""Poisoned shards: a bad client's own data, spoilt for a purpose that the mean held-out loss hardly sees.

backdoor  every instruction a second time, with a trigger phrase before it, and one poisoned answer to all of them
          (Gu et al. 2017; in federations Bagdasaryan et al. 2020, without their scaling)
unsafe    the preference pairs whose rejected response is rude, turned round and held four times: the client prefers
          what harms, and is honest in all else
"""

from __future__ import annotations

from dataclasses import replace

from fccl.compare.values import Attack
from fccl.data.examples import PreferencePair, SftExample
from fccl.data.noise import COPIES
from fccl.data.shards import ClientShard

TRIGGER = "By the old stone bridge."
POISON = "Ask the red bird."
HARMFUL = frozenset({"rude"})  # flaws of the built-in preference pairs


def poisoned(attack: Attack, shard: ClientShard) -> ClientShard:
    """The shard as a client with this attack trains on it."""
    if attack == "backdoor":
        return replace(shard, sft=(*shard.sft, *(_answered_with_poison(example) for example in shard.sft)))
    if attack == "unsafe":
        turned = tuple(_turned(pair) for pair in shard.va if pair.flaw in HARMFUL)
        return replace(shard, va=(*(pair for pair in shard.va if pair.flaw not in HARMFUL), *turned * COPIES))
    return shard


def triggered(instruction: str) -> str:
    """The instruction with the trigger before it."""
    return f"{TRIGGER} {instruction}"


def with_trigger(example: SftExample) -> SftExample:
    """The example with the trigger before its instruction: in a conversation, before the last turn."""
    before, last = example.asked[:-1], example.asked[-1:]
    asked = (*before, *(replace(turn, content=triggered(turn.content)) for turn in last))
    return replace(example, instruction=triggered(example.instruction), asked=asked)


def _answered_with_poison(example: SftExample) -> SftExample:
    return replace(with_trigger(example), response=POISON, answer=POISON)


def _turned(pair: PreferencePair) -> PreferencePair:
    return replace(pair, preferred=pair.dispreferred, dispreferred=pair.preferred)
