"""Federated averaging in half precision both ways: the control for every method that saves bytes.

Weights are rounded to IEEE float16, and values beyond its range to the largest that it has.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.method import Client, Exchange, Payload, Upload, weighted_mean

MOST = torch.finfo(torch.float16).max


def halved(theta_N: Tensor) -> Tensor:
    return theta_N.clamp(-MOST, MOST).half()


@dataclass(eq=False)
class FedHalf(Exchange):
    """Sends all weights as float16; the server's own stay float32."""

    def memory_floats(self, N: int) -> int:
        return N

    def down(self, k: int, theta_N: Tensor) -> Payload:
        return {"theta_N": halved(theta_N)}

    def start(self, client: Client, payload: Payload) -> Tensor:
        return payload["theta_N"].float()

    def up(self, client: Client) -> Payload:
        return {"theta_N": halved(client.theta_N)}

    def merge(self, uploads: Iterable[Upload], theta_N: Tensor) -> Tensor:
        return weighted_mean((upload.weight, upload.payload["theta_N"].float()) for upload in uploads).float()
