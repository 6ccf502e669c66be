"""The O(N T M) part of CMD: each weight's correlation with every reference, block by block.

Sums of raw float32 values lose small motions (median error of rho 0.09 at std/mean = 1e-3), so a block is shifted by
its first snapshot, which is exact where the motion is small, then centred, both in float32: rho agrees with float64 to
1e-6 whatever std/mean is. A block stays in the processor's cache from the shift to the last product. The few weights
whose squared motion leaves float32's range are done again in float64.

Shape suffixes: N weights, T snapshots, B a block of weights, M modes, H weights done again.
"""

from __future__ import annotations

import torch
from torch import Tensor

CACHE_BYTES = {"cpu": 1 << 23, "cuda": 1 << 26}
"""size of a float32 block (T, B); of 1 to 64 MiB on 2 cores only 16 was faster, which asks for more cache"""

SMALL, LARGE = 1e-24, 1e36
"""squared motion over time that float32 holds to full precision"""


class NotFinite(Exception):
    """Some snapshot holds nan or inf."""


def block_width(T: int, device: torch.device) -> int:
    """Weights in a block: a power of two, the same for every budget, so that the last bits are the same too."""
    fitting = CACHE_BYTES.get(device.type, CACHE_BYTES["cuda"]) // (4 * T)
    return max(64, 1 << (fitting.bit_length() - 1))


def label_type(M: int) -> torch.dtype:
    """The smallest integer type that holds the labels 0..M-1."""
    if M <= 1 << 8:
        return torch.uint8
    return torch.int16 if M <= 1 << 15 else torch.int32


class Projection:
    """Mean, slope, mode and correlation of every weight against given references (T, M), in float64."""

    def __init__(self, N: int, x_TM: Tensor, mu_M: Tensor, device: torch.device) -> None:
        d_TM = x_TM - mu_M
        self.norm_M = torch.linalg.vector_norm(d_TM, dim=0)
        self.scale_M = self.norm_M.where(self.norm_M > 0, 1.0).to(device)
        self.unit_MT = (d_TM.to(device) / self.scale_M).T.contiguous()
        self.unit32_MT = self.unit_MT.float()
        self.ones32_T = torch.ones(1, len(x_TM), device=device)
        self.rank_M = torch.arange(x_TM.shape[1], 0, -1, dtype=torch.float32, device=device)[:, None]
        self.inverse32_M = (1 / self.scale_M).float()
        self.width = block_width(len(x_TM), device)
        self.wbar_N, self.a_N, self.rho_N = (torch.empty(N, device=device) for _ in range(3))
        self.mode_N = torch.empty(N, dtype=label_type(x_TM.shape[1]), device=device)

    @torch.no_grad()
    def add(self, W_TB: Tensor, start: int) -> int:
        """Fit the weights from `start` on, whose snapshots are W_TB; how many never moved. NotFinite."""
        T, B = W_TB.shape
        buffer = torch.empty(T * min(B, self.width), device=W_TB.device)
        constant = 0
        for first in range(0, B, self.width):
            part_TB = W_TB[:, first : first + self.width]
            constant += self._block(part_TB, start + first, buffer[: part_TB.numel()].view(part_TB.shape))
        return constant

    def _block(self, W_TB: Tensor, start: int, X_TB: Tensor) -> int:
        """One block that fits the cache, with X_TB to work in."""
        _shift(W_TB, X_TB)
        mean_B = self._sum(X_TB) / len(X_TB)
        X_TB -= mean_B
        product_MB = self.unit32_MT @ X_TB
        norm2_B = self._sum(X_TB.mul_(X_TB))
        mode_B = self._strongest(product_MB.abs())
        product_B = product_MB.gather(0, mode_B[None])[0]
        here = slice(start, start + len(mode_B))
        self.wbar_N[here] = W_TB[0] + mean_B
        self.mode_N[here] = mode_B
        torch.mul(product_B, self.inverse32_M.index_select(0, mode_B.int()), out=self.a_N[here])
        rho_B = torch.div(product_B, norm2_B.sqrt().clamp_(min=SMALL), out=self.rho_N[here])
        rho_B.clamp_(-1, 1)
        low, high = torch.stack(norm2_B.aminmax()).tolist()
        if low >= SMALL and high <= LARGE:
            return 0
        return self._again(W_TB, start, ~((norm2_B >= SMALL) & (norm2_B <= LARGE)))

    def _sum(self, X_TB: Tensor) -> Tensor:
        """Over snapshots: a product with ones is several times faster than a reduction over rows."""
        return (self.ones32_T @ X_TB)[0]

    def _strongest(self, strength_MB: Tensor) -> Tensor:
        """Index of the largest, the first of equals, strength_MB being used up: several times faster than `argmax`."""
        M = len(strength_MB)
        first_B = strength_MB.eq_(strength_MB.amax(0)).mul_(self.rank_M).amax(0)
        # nan equals nothing
        return (M - first_B).clamp_(max=M - 1).long()

    def _again(self, W_TB: Tensor, start: int, hard_B: Tensor) -> int:
        """Weights whose squared motion is 0, or too small or large for float32; how many never moved."""
        hard = torch.nonzero(hard_B).squeeze(1)
        W_TH = W_TB[:, hard]
        moved_H = (W_TH[1:] != W_TH[0]).any(0)
        still = start + hard[~moved_H]
        self.mode_N[still], self.a_N[still], self.rho_N[still] = 0, 0.0, 0.0
        self.wbar_N[still] = W_TH[0, ~moved_H].float()
        X_TH = W_TH[:, moved_H].double()
        moved = start + hard[moved_H]
        if not bool(torch.isfinite(X_TH).all()):
            raise NotFinite
        mean_H = X_TH.mean(0)
        X_TH -= mean_H
        product_MH = self.unit_MT @ X_TH
        mode_H = product_MH.abs().max(0).indices
        product_H = product_MH.gather(0, mode_H[None])[0]
        self.wbar_N[moved] = mean_H.float()
        self.mode_N[moved] = mode_H.to(self.mode_N.dtype)
        self.a_N[moved] = (product_H / self.scale_M[mode_H]).float()
        self.rho_N[moved] = (product_H / torch.linalg.vector_norm(X_TH, dim=0)).float()
        return len(still)

    def settle(self, reference_M: Tensor, mu_M: Tensor) -> None:
        """A reference that moves belongs to its own mode, whatever rounding says, and is its own model."""
        own_M = torch.nonzero(self.norm_M > 0).squeeze(1)
        index_M = reference_M[own_M].to(self.mode_N.device)
        self.mode_N[index_M] = own_M.to(self.mode_N)
        self.a_N[index_M], self.rho_N[index_M] = 1.0, 1.0
        self.wbar_N[index_M] = mu_M[own_M].to(self.wbar_N)


def _shift(W_TB: Tensor, X_TB: Tensor) -> None:
    """X_TB = W_TB - its first snapshot, in the finer of float32 and W's own type."""
    if W_TB.dtype in (torch.float16, torch.bfloat16):
        X_TB.copy_(W_TB).sub_(W_TB[0].float())
    else:
        torch.sub(W_TB, W_TB[0], out=X_TB)
