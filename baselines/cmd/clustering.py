"""The modes of CMD: clusters of correlated trajectories, each with the one trajectory that stands for it.

The clustering of Brokman et al. (ICLR 2024). In float64 on the CPU, so that modes are the same on every device;
products by torch, whose thread count the harness fixes, not by numpy's own BLAS.

Shape suffixes: T snapshots, K sampled weights, M modes.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor


def references(x_TK: Tensor, modes: int) -> Tensor:
    """Columns of x_TK that stand for the modes, largest mode first: (M,) int64, M at most `modes` and K.

    Fewer than `modes` come out where the trajectories have fewer distinct correlations. Ties go to the lower index.
    """
    corr_KK = abs_correlation(x_TK)
    label_K = cluster(corr_KK, modes)
    # A stable sort leaves modes of one size in the order of their labels.
    order_M = np.argsort(-np.bincount(label_K), kind="stable")
    return torch.stack([_most_central(corr_KK, torch.from_numpy(np.flatnonzero(label_K == m))) for m in order_M])


def abs_correlation(x_TK: Tensor) -> Tensor:
    """|Pearson correlation| of the columns: (K, K), exactly symmetric; a constant column correlates 0 with all."""
    shifted_TK = x_TK - x_TK[0]
    centred_TK = shifted_TK - shifted_TK.mean(0)
    norm_K = torch.linalg.vector_norm(centred_TK, dim=0)
    z_TK = centred_TK / norm_K.where(norm_K > 0, 1.0)
    corr_KK = (z_TK.T @ z_TK).abs_()
    corr_KK = torch.add(corr_KK, corr_KK.T).div_(2).clamp_(max=1.0)
    corr_KK.diagonal().copy_(norm_K > 0)
    return corr_KK


def cluster(corr_KK: Tensor, modes: int) -> NDArray[np.int64]:
    """Complete linkage of the rows under Euclidean distance, cut into at most `modes`: labels from 0, (K,)."""
    if len(corr_KK) == 1:
        return np.zeros(1, dtype=np.int64)
    tree = linkage(row_distances(corr_KK), method="complete")
    label_K: NDArray[np.int64] = fcluster(tree, modes, criterion="maxclust").astype(np.int64) - 1
    return label_K


def row_distances(rows_KK: Tensor) -> NDArray[np.float64]:
    """Euclidean distances between rows in scipy's condensed form, from one Gram product: O(K^3) at matmul speed.

    The product cancels for rows that are nearly equal: what lies within its rounding counts as distance 0, as it
    would be between equal rows, so that duplicates do not fall apart into modes made of rounding.
    """
    square_KK = rows_KK @ rows_KK.T
    norm2_K = square_KK.diagonal().clone()
    square_KK.mul_(-2).add_(norm2_K).add_(norm2_K[:, None])
    rounding = 16 * torch.finfo(torch.float64).eps
    square_KK[square_KK <= rounding * (norm2_K[:, None] + norm2_K)] = 0
    condensed: NDArray[np.float64] = squareform(square_KK.numpy(), checks=False)
    return np.sqrt(condensed, out=condensed)


def _most_central(corr_KK: Tensor, member: Tensor) -> Tensor:
    """The member with the largest mean correlation within its cluster."""
    return member[corr_KK[member][:, member].mean(1).argmax()]
