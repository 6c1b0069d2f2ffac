"""SCAFFOLD's control variates at the server (Karimireddy et al. 2020).

c_i says where client i's gradients point, c where the federation's do; a client trains with g + c - c_i
(`fccl.training.drift`) and so does not drift towards its own optimum. The server keeps every c_i: clients stay without
state, and may die and move. It could know them anyway, as the sum of what a client has sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from fccl.adapters.adapter import Adapter, Form
from fccl.adapters.source import AdapterSource
from fccl.aggregation.vectors import flat, size, unflat


@dataclass(frozen=True, eq=False)
class ClientControl:
    """c_i as the client last sent it, and its share p_i in c."""

    share: float
    adapter: AdapterSource


SCAFFOLD = "scaffold"  # as AGGREGATION spells it
Controls = Mapping[int, ClientControl]  # by client; who has never sent one has c_i = 0 and is not in it


def server_control(controls: Controls, form: Form) -> Adapter:
    """c = sum_i p_i c_i, in client order, one in memory at a time. Zero when there is none.

    Summed anew every round, so that it is the sum of what is kept and no rounding adds up.
    """
    total = torch.zeros(size(form), dtype=torch.float64)
    for _, control in sorted(controls.items()):
        form.require(control.adapter.form)
        total.add_(flat(control.adapter.load()).double(), alpha=control.share)
    return unflat(total, form, "scaffold")


@dataclass(frozen=True, eq=False)
class ServerCorrections:
    """c - c_i of any client, computed when it is asked for: `fccl.training.drift` adds it to the client's gradients."""

    everybody: Adapter  # c
    controls: Controls

    def of(self, client_id: int) -> Adapter:
        """c - c_i; c for a client that has never sent a c_i."""
        own = self.controls.get(client_id)
        if own is None:
            return self.everybody
        difference = flat(self.everybody).double() - flat(own.adapter.load()).double()
        return unflat(difference, self.everybody.form, SCAFFOLD)


def corrections(controls: Controls, form: Form) -> ServerCorrections:
    """The corrections of a round that begins with these controls."""
    return ServerCorrections(server_control(controls, form), controls)


def controls_after(controls: Controls, sent: Mapping[int, ClientControl], num_clients: int) -> Controls:
    """The controls after a round in which the clients of `sent` answered, each with its new c_i and, as share, its
    weight in the round.

    p_i = w_i · |S| / N. With equal weights that is the paper's 1/N. With all clients in the round it is w_i: c is then
    the gradient of sum_i w_i f_i, the objective that the mean of the updates descends.
    """
    scale = len(sent) / num_clients
    return dict(
        sorted(
            {
                **controls,
                **{client: ClientControl(control.share * scale, control.adapter) for client, control in sent.items()},
            }.items()
        )
    )
