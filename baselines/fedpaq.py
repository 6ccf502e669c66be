"""FedPAQ: clients send quantised updates.

Reisizadeh et al., FedPAQ: A Communication-Efficient Federated Learning Method with Periodic Averaging and Quantization
(AISTATS 2020), with the quantiser of QSGD (Alistarh et al., NeurIPS 2017), but by the largest magnitude of every tensor
instead of its norm, as is usual: of a client's update D, |D|/m times the levels s = 2^(bits-1) - 1 is rounded up or
down at random so that its mean is kept, m the largest |D|. A sign and a level take `bits` bits, and m four bytes a
tensor.

Shape suffixes: N trainable weights, L tensors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from baselines.parameters import check_whole
from harness.method import Client, Exchange, Layout, Payload, Session, Upload, weighted_mean
from harness.snapshots import tensors_of


def packed(values_N: Tensor, bits: int) -> Tensor:
    """Whole numbers from 0 to 2^bits - 1 as bytes, `bits` bits each."""
    wide_N1 = values_N.cpu().numpy().astype(">u2").reshape(-1, 1).view(np.uint8)
    bits_N = np.unpackbits(wide_N1, axis=1)[:, 16 - bits :]
    return torch.from_numpy(np.packbits(bits_N)).to(values_N.device)


def unpacked(data: Tensor, bits: int, N: int) -> Tensor:
    """The inverse of `packed`, int32 (N,)."""
    bits_N = np.unpackbits(data.cpu().numpy(), count=N * bits).reshape(N, bits)
    wide_N = np.pad(bits_N, ((0, 0), (16 - bits, 0)))
    values_N = np.packbits(wide_N, axis=1).view(">u2").astype(np.int32).reshape(-1)
    return torch.from_numpy(values_N).to(data.device)


def each_weight(of_L: Tensor, layout: Layout) -> Tensor:
    """A tensor's value for each of its weights: (N,)."""
    return of_L.repeat_interleave(torch.tensor(layout.sizes, device=of_L.device))


def quantised(D_N: Tensor, layout: Layout, bits: int, draws: torch.Generator) -> dict[str, Tensor]:
    """An update as it is sent: levels with their signs, and the largest magnitude of every tensor."""
    s = 2 ** (bits - 1) - 1
    m_L = torch.stack([part.abs().max() for part in tensors_of(D_N, layout)])
    m_N = each_weight(m_L, layout)
    u_N = torch.rand(len(D_N), generator=draws).to(D_N.device)
    level_N = torch.where(m_N > 0, (D_N.abs() / m_N * s + u_N).floor(), 0).clamp(max=s)
    return {"q": packed(level_N.int() + (D_N < 0).int() * (s + 1), bits), "m_L": m_L}


def restored(payload: Payload, layout: Layout, bits: int) -> Tensor:
    """The update that was sent, (N,) float32."""
    s = 2 ** (bits - 1) - 1
    q_N = unpacked(payload["q"], bits, layout.N)
    sign_N = torch.where(q_N > s, -1.0, 1.0)
    restored_N: Tensor = sign_N * (q_N % (s + 1)) * each_weight(payload["m_L"], layout) / s
    return restored_N


@dataclass(eq=False)
class FedPAQ(Exchange):
    """Updates of `bits` bits a weight, the server's weights in full; ValueError where bits is not from 2 to 16."""

    bits: int = 8

    def __post_init__(self) -> None:
        check_whole("bits", self.bits, 2, 16)

    def memory_floats(self, N: int) -> int:
        """An update as it is restored."""
        return 2 * N

    def begin(self, session: Session) -> None:
        self.layout = session.layout

    def up(self, client: Client) -> Payload:
        draws = client.rng(f"qsgd/{client.k}/{client.t}")
        return quantised(client.theta_N - client.start_N, client.layout, self.bits, draws)

    def merge(self, uploads: Iterable[Upload], theta_N: Tensor) -> Tensor:
        updates = ((upload.weight, restored(upload.payload, self.layout, self.bits)) for upload in uploads)
        return (theta_N.double() + weighted_mean(updates)).float()
