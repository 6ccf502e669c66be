"""The modes of CMD: clusters of correlated trajectories, each with the one trajectory that stands for it.

Steps 2 and 3 of post-hoc CMD (Brokman et al., ICLR 2024), in float64. Products are torch's, whose thread count the
harness fixes, not numpy's own BLAS, and run on the trajectories' device; the linkage is scipy's and runs on the CPU.

Shape suffixes: T snapshots, K sampled weights, M modes.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROWS = 512
"""rows of the distance matrix that are worked on at a time"""


def find_modes(x_TK: Tensor, modes: int) -> tuple[Tensor, Tensor]:
    """The mode of every trajectory, (K,), and the columns of x_TK that stand for the modes, (M,): int64 on the CPU.

    Modes are numbered from 0, largest first; fewer than `modes` come out where the trajectories have fewer distinct
    correlations. A mode's reference is the member with the largest mean correlation within it. Ties go to the lower
    index.
    """
    corr_KK = abs_correlation(x_TK)
    label_K = cluster(corr_KK, modes)
    # A stable sort leaves modes of one size in the order of their labels.
    number_M = np.argsort(-np.bincount(label_K), kind="stable")
    mode_K = torch.from_numpy(np.argsort(number_M)[label_K])
    members = [torch.nonzero(mode_K == mode).squeeze(1) for mode in range(len(number_M))]
    return mode_K, torch.stack([_most_central(corr_KK, member) for member in members])


def abs_correlation(x_TK: Tensor) -> Tensor:
    """|Pearson correlation| of the columns: (K, K), exactly symmetric; a constant column correlates 0 with all."""
    shifted_TK = x_TK - x_TK[0]
    centred_TK = shifted_TK - shifted_TK.mean(0)
    # Squares of motions below 1e-160 would vanish
    scale_K = centred_TK.abs().amax(0)
    centred_TK /= scale_K.where(scale_K > 0, 1.0)
    norm_K = torch.linalg.vector_norm(centred_TK, dim=0)
    z_TK = centred_TK / norm_K.where(norm_K > 0, 1.0)
    corr_KK: Tensor = (z_TK.T @ z_TK).abs_()
    for start in range(0, len(corr_KK), ROWS):
        # In place, a block of rows with its mirror image: K = 10,000 takes 0.8 GB already
        rows, columns = corr_KK[start : start + ROWS, start:], corr_KK[start:, start : start + ROWS]
        mean = (rows + columns.T).div_(2).clamp_(max=1.0)
        rows.copy_(mean)
        columns.copy_(mean.T)
    corr_KK.diagonal().copy_(norm_K > 0)
    return corr_KK


def cluster(corr_KK: Tensor, modes: int) -> NDArray[np.int64]:
    """Labels from 0, (K,), of the complete linkage of the rows under Euclidean distance, cut into at most `modes`."""
    # here, since it takes as long to import as all the rest of CMD, and whoever only checks parameters needs none of it
    from scipy.cluster.hierarchy import fcluster, linkage

    if len(corr_KK) == 1:
        return np.zeros(1, dtype=np.int64)
    tree = linkage(row_distances(corr_KK), method="complete")
    label_K: NDArray[np.int64] = fcluster(tree, modes, criterion="maxclust").astype(np.int64) - 1
    return label_K


def row_distances(rows_KK: Tensor) -> NDArray[np.float64]:
    """Euclidean distances between rows in scipy's condensed form, from a Gram product: O(K^3) at matmul speed.

    The product cancels for rows that are nearly equal: what lies within its rounding counts as distance 0, as it
    would be between equal rows, so that duplicates do not fall apart into modes made of rounding.
    """
    K = len(rows_KK)
    norm2_K = (rows_KK * rows_KK).sum(1)
    rounding = 16 * torch.finfo(torch.float64).eps
    condensed = torch.empty(K * (K - 1) // 2, dtype=torch.float64)
    filled = 0
    for start in range(0, K, ROWS):
        # The lower half is the upper one's mirror image
        sum2_RK = norm2_K[start : start + ROWS, None] + norm2_K[start:]
        square_RK = torch.addmm(sum2_RK, rows_KK[start : start + ROWS], rows_KK[start:].T, alpha=-2)
        square_RK[square_RK <= rounding * sum2_RK] = 0
        distance_RK = square_RK.sqrt_().cpu()
        for row in range(len(distance_RK)):
            beyond = distance_RK[row, row + 1 :]
            condensed[filled : filled + len(beyond)] = beyond
            filled += len(beyond)
    return condensed.numpy()


def _most_central(corr_KK: Tensor, member: Tensor) -> Tensor:
    """The member with the largest mean correlation within its cluster."""
    there = member.to(corr_KK.device)
    return member[int(corr_KK[there][:, there].mean(1).argmax())]
