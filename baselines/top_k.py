"""Top-k sparsification with error feedback: clients send the largest entries of their update, and remember the rest.

Stich, Cordonnier and Jaggi, Sparsified SGD with Memory (NeurIPS 2018), applied to the updates of rounds as in Sattler
et al., Robust and Communication-Efficient Federated Learning from Non-i.i.d. Data (TNNLS 2019). Which entries are sent
is said by their indices or by a bitmap, whichever is shorter.

Shape suffixes: N trainable weights, K entries that are sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.parameters import check_share
from harness.method import Client, Exchange, Payload, Upload, weighted_mean


@dataclass(eq=False)
class TopK(Exchange):
    """The `share` of an update's entries that are largest in magnitude, at least one; ties go to the lower index.

    ValueError where share is not in (0, 1].
    """

    share: float = 0.05

    def __post_init__(self) -> None:
        check_share("share", self.share)

    def memory_floats(self, N: int) -> int:
        """An update as it is merged; every client remembers as much."""
        return 2 * N

    def up(self, client: Client) -> Payload:
        D_N = client.theta_N - client.start_N
        if "memory_N" in client.state:
            D_N += client.state["memory_N"]
        N = len(D_N)
        k = max(1, round(self.share * N))
        index_K = D_N.abs().argsort(descending=True, stable=True)[:k].sort().values
        sent_K = D_N[index_K]
        client.state["memory_N"] = D_N.index_fill(0, index_K, 0.0)
        if 4 * k <= (N + 7) // 8:
            return {"sent_K": sent_K, "index_K": index_K.int()}
        return {"sent_K": sent_K, "is_sent_N": torch.zeros_like(D_N, dtype=torch.bool).index_fill_(0, index_K, True)}

    def merge(self, uploads: Iterable[Upload], theta_N: Tensor) -> Tensor:
        def updates() -> Iterable[tuple[float, Tensor]]:
            for upload in uploads:
                sent = upload.payload
                index_K = sent["index_K"].long() if "index_K" in sent else torch.nonzero(sent["is_sent_N"]).squeeze(1)
                yield upload.weight, torch.zeros_like(theta_N).index_copy_(0, index_K, sent["sent_K"])

        return (theta_N.double() + weighted_mean(updates())).float()
