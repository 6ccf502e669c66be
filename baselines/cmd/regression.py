"""The regression of every weight on the reference that it correlates with most, in O(N T M).

Step 4 and 5 of post-hoc CMD (Brokman et al., ICLR 2024) in blocks of weights. Sums of raw float32 values lose small
motions (median error of rho 0.09 at std/mean = 1e-3), so a block is shifted by its first snapshot, which is exact where
the motion is small, then centred, both in float32: rho agrees with float64 to 1e-6 whatever std/mean is. A block stays
in the processor's cache from the shift to the last product, too small to be shared between cores: on the CPU every
thread works on blocks of its own, so that no bit depends on how many threads there are. The few weights whose squared
motion leaves float32's range are done again in float64.

Shape suffixes: N weights, T snapshots, B a block of weights, M modes, H weights done again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Protocol, TypeVar

import torch
from torch import Tensor

CACHE_BYTES = {"cpu": 1 << 23, "cuda": 1 << 26}
"""size of a float32 block (T, B); among 1 to 64 MiB on 2 cores only 16 was faster, which asks for more cache"""

SMALL, LARGE = 1e-24, 1e36
"""squared motion over time that float32 holds to full precision"""

PIECE = 1 << 19
"""weights that an elementwise pass holds temporaries for"""

Result = TypeVar("Result")


class NotFinite(Exception):
    """Some snapshot holds nan or inf."""


class Submit(Protocol):
    """Takes work and gives its future."""

    def __call__(self, work: Callable[[], Result], /) -> Future[Result]: ...


def _at_once(work: Callable[[], Result]) -> Future[Result]:
    future: Future[Result] = Future()
    future.set_result(work())
    return future


@contextlib.contextmanager
def _threads(device: torch.device, parts: int) -> Iterator[Submit]:
    """Submits work to as many threads as torch may use here; does it at once on other devices, or if it is one part."""
    if device.type != "cpu":
        yield _at_once
        return
    threads = torch.get_num_threads()
    try:
        if min(threads, parts) == 1:
            torch.set_num_threads(1)
            yield _at_once
            return
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.submit
    finally:
        # A worker's setting reaches the matrix products of this thread too
        torch.set_num_threads(threads)


def slices(start: int, stop: int, width: int) -> list[slice]:
    """Consecutive slices of at most `width`."""
    return [slice(first, min(first + width, stop)) for first in range(start, stop, width)]


def by_pieces(work: Callable[[slice], None], N: int, device: torch.device) -> None:
    """Do elementwise work on consecutive slices of N weights, side by side, so that temporaries stay small."""
    cut = slices(0, N, PIECE)
    with _threads(device, len(cut)) as submit:
        for done in [submit(partial(work, piece)) for piece in cut]:
            done.result()


def spread(values_M: Tensor, mode_N: Tensor) -> Tensor:
    """The value of each weight's mode, float32 on the weights' device."""
    # uint8 indices would be read as a mask
    return values_M.to(mode_N.device, torch.float32).index_select(0, mode_N.int())


def decode(wbar_N: Tensor, coefficient_N: Tensor, mode_N: Tensor, motion_M: Tensor) -> Tensor:
    """The weights wbar + coefficient * motion of their mode, (N,) float32."""
    theta_N = torch.empty_like(wbar_N)
    motion32_M = motion_M.to(wbar_N.device, torch.float32)

    def work(piece: slice) -> None:
        motion = spread(motion32_M, mode_N[piece])
        torch.addcmul(wbar_N[piece], coefficient_N[piece], motion, out=theta_N[piece])

    by_pieces(work, len(theta_N), wbar_N.device)
    return theta_N


def block_width(T: int, device: torch.device) -> int:
    """Weights in a block: a power of two, the same for every budget, so that the last bits are the same too."""
    fitting = CACHE_BYTES.get(device.type, CACHE_BYTES["cuda"]) // (4 * T)
    return max(64, 1 << (fitting.bit_length() - 1))


def label_type(M: int) -> torch.dtype:
    """The smallest integer type that holds the labels 0..M-1."""
    if M <= 1 << 8:
        return torch.uint8
    return torch.int16 if M <= 1 << 15 else torch.int32


class Regression:
    """Mean, slope, mode and correlation of N weights against the references x_TM, float64 on the CPU.

    `device` is that of the weights and of the results; `constant` counts the weights that never moved, whose mode is 0.
    """

    def __init__(self, N: int, x_TM: Tensor, device: torch.device) -> None:
        self.mu_M = x_TM.mean(0)
        d_TM = x_TM - self.mu_M
        self.device = device
        self.constant = 0
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

    def read_bytes(self, max_bytes: int) -> int:
        """The size of the blocks to read: whole ones, a quarter of a budget, since at most three are alive at once.

        One is being read, one fitted, and of one the last parts are.
        """
        column_bytes: int = 4 * self.unit_MT.shape[1] * self.width
        return max(1, max_bytes // 4 // column_bytes) * column_bytes

    def run(self, blocks: Iterable[tuple[int, int, Tensor]]) -> None:
        """Fit all weights, whose snapshots come in blocks (start, stop, W_TB), in one pass; NotFinite."""
        part = 8 * self.width
        with _threads(self.device, -(-len(self.a_N) // part)) as submit:
            running: list[Future[int]] = []
            for start, stop, W_TB in blocks:
                ahead = [submit(partial(self.add, W_TB[:, b], start + b.start)) for b in slices(0, stop - start, part)]
                self.constant += sum(future.result() for future in running)
                running = ahead
            self.constant += sum(future.result() for future in running)

    @torch.no_grad()
    def add(self, W_TB: Tensor, start: int) -> int:
        """Fit the weights from `start` on, whose snapshots are W_TB, and give how many never moved; NotFinite."""
        T, B = W_TB.shape
        buffer = torch.empty(T * min(B, self.width), device=W_TB.device)
        constant = 0
        for first in range(0, B, self.width):
            part_TB = W_TB[:, first : first + self.width]
            constant += self._block(part_TB, start + first, buffer[: part_TB.numel()].view(part_TB.shape))
        return constant

    def _block(self, W_TB: Tensor, start: int, X_TB: Tensor) -> int:
        """Fit one block that fits the cache, with X_TB to work in."""
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
        """The sum over snapshots, as a product with ones: several times faster than a reduction over rows."""
        return (self.ones32_T @ X_TB)[0]

    def _strongest(self, strength_MB: Tensor) -> Tensor:
        """The index of the largest, the first of equals, several times faster than `argmax`; strength_MB is used up."""
        M = len(strength_MB)
        first_B = strength_MB.eq_(strength_MB.amax(0)).mul_(self.rank_M).amax(0)
        # nan equals nothing
        return (M - first_B).clamp_(max=M - 1).long()

    def _again(self, W_TB: Tensor, start: int, hard_B: Tensor) -> int:
        """Do weights again whose squared motion is 0, or too small or large for float32; how many never moved."""
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

    def settle(self, reference_M: Tensor) -> None:
        """A reference that moves belongs to its own mode, whatever rounding says, and is its own model."""
        own_M = torch.nonzero(self.norm_M > 0).squeeze(1)
        index_M = reference_M[own_M].to(self.mode_N.device)
        self.mode_N[index_M] = own_M.to(self.mode_N)
        self.a_N[index_M], self.rho_N[index_M] = 1.0, 1.0
        self.wbar_N[index_M] = self.mu_M[own_M].to(self.wbar_N)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """How many weights moved in each mode, and their mean |rho|."""
        M = len(self.mu_M)
        size_M = torch.zeros(M, dtype=torch.int64, device=self.device)
        sum_M = torch.zeros(M, dtype=torch.float64, device=self.device)
        for piece in slices(0, len(self.mode_N), PIECE):
            size_M += torch.bincount(self.mode_N[piece], minlength=M)
            sum_M.index_add_(0, self.mode_N[piece].int(), self.rho_N[piece].abs().double())
        size_M[0] -= self.constant
        return size_M.cpu(), (sum_M / size_M.clamp(min=1)).cpu()


def _shift(W_TB: Tensor, X_TB: Tensor) -> None:
    """X_TB = W_TB - its first snapshot, in the finer of float32 and W's own type."""
    if W_TB.dtype in (torch.float16, torch.bfloat16):
        X_TB.copy_(W_TB).sub_(W_TB[0].float())
    else:
        torch.sub(W_TB, W_TB[0], out=X_TB)
