"""CMD in plain lines: the three algorithms of the paper, in float64 and on arrays that fit into memory.

Brokman et al., Enhancing Neural Training via a Correlated Dynamics Model (ICLR 2024). Read this first: the rest of the
package does the same in blocks, in threads and in float32, with options, and is tested against what stands here.

Shape suffixes: T snapshots, N weights, K sampled weights, M modes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Fit:
    """The model w_i(t) = a_i x(t) + b_i, where x is the reference weight of the mode of weight i."""

    reference_M: Indices
    mode_N: Indices
    a_N: Array
    b_N: Array

    def model(self, w_N: Array) -> Array:
        """The modelled weights at the snapshot w_N, of which only the references are looked at."""
        return self.a_N * w_N[self.reference_M][self.mode_N] + self.b_N


def correlation(X_TN: Array, Y_TM: Array) -> Array:
    """Pearson correlations (N, M) between columns; 0 with a column that never moves."""
    X_TN, Y_TM = X_TN - X_TN.mean(0), Y_TM - Y_TM.mean(0)
    norms_NM = np.outer(np.linalg.norm(X_TN, axis=0), np.linalg.norm(Y_TM, axis=0))
    return np.divide(X_TN.T @ Y_TM, norms_NM, out=np.zeros_like(norms_NM), where=norms_NM > 0)


def regression(W_TN: Array, X_TN: Array) -> tuple[Array, Array]:
    """The least squares w ~ a x + b of every column on its own x; a is 0 where x never moves."""
    x_TN, w_TN = X_TN - X_TN.mean(0), W_TN - W_TN.mean(0)
    variance_N = (x_TN**2).sum(0)
    a_N = np.divide((w_TN * x_TN).sum(0), variance_N, out=np.zeros_like(variance_N), where=variance_N > 0)
    return a_N, W_TN.mean(0) - a_N * X_TN.mean(0)


def posthoc(W_TN: NDArray[Any], modes: int, sample_K: Indices) -> Fit:
    """Post-hoc CMD of all snapshots, whose modes are clusters of the sampled weights, largest first."""
    W_TN = np.asarray(W_TN, np.float64)
    # Modes: clusters of sampled weights whose rows of absolute correlations lie close to each other.
    corr_KK = np.abs(correlation(W_TN[:, sample_K], W_TN[:, sample_K]))
    label_K = fcluster(linkage(pdist(corr_KK), "complete"), modes, "maxclust")
    clusters = sorted((np.flatnonzero(label_K == label) for label in np.unique(label_K)), key=len, reverse=True)
    # References: the most central member of each; rounded, so that ties go to the first.
    central = [own[corr_KK[np.ix_(own, own)].mean(1).round(12).argmax()] for own in clusters]
    reference_M = np.asarray(sample_K)[central]
    # Every weight joins the reference that it is most correlated with, a moving reference itself.
    mode_N = np.abs(correlation(W_TN, W_TN[:, reference_M])).argmax(1)
    moves_M = np.ptp(W_TN[:, reference_M], axis=0) > 0
    mode_N[reference_M[moves_M]] = np.flatnonzero(moves_M)
    return Fit(reference_M, mode_N, *regression(W_TN, W_TN[:, reference_M][:, mode_N]))


def online(W_TN: NDArray[Any], modes: int, sample_K: Indices, warmup: int) -> Iterator[Fit]:
    """Online CMD: the fit after the first `warmup` + 1 snapshots, whose modes stay, and after each that follows."""
    W_TN = np.asarray(W_TN, np.float64)
    past_TN = W_TN[: warmup + 1]
    fit = posthoc(past_TN, modes, sample_K)
    yield fit
    n, mu_M, wbar_N = float(len(past_TN)), past_TN[:, fit.reference_M].mean(0), past_TN.mean(0)
    S_M = ((past_TN[:, fit.reference_M] - mu_M) ** 2).sum(0)
    C_N = fit.a_N * S_M[fit.mode_N]
    for w_N in W_TN[warmup + 1 :]:  # from here on only n, mu, S, wbar and C are known of the past
        x_M = w_N[fit.reference_M]
        d_M = x_M - mu_M
        n += 1
        mu_M = mu_M + d_M / n
        S_M = S_M + d_M * (x_M - mu_M)
        wbar_N = wbar_N + (w_N - wbar_N) / n
        C_N = C_N + d_M[fit.mode_N] * (w_N - wbar_N)
        S_N = S_M[fit.mode_N]
        a_N = np.divide(C_N, S_N, out=np.zeros_like(C_N), where=S_N > 0)
        yield replace(fit, a_N=a_N, b_N=wbar_N - a_N * mu_M[fit.mode_N])


def embedded(
    theta_N: Array,
    train_epoch: Callable[[Array], Array],
    epochs: int,
    modes: int,
    sample_K: Indices,
    warmup: int,
    every: int,
    percent: float,
) -> Iterator[tuple[Array, dict[int, tuple[float, float, int]]]]:
    """Embedded CMD: after each epoch the weights, and of the embedded ones slope, intercept and reference.

    At every epoch that `every` divides, `percent` percent of the weights are embedded, those whose coefficients moved
    least since the last time; constant ones are left out and not counted, which is ours. `train_epoch` trains all
    weights; the package also leaves out those that move by weight decay alone.
    """
    embedded: dict[int, tuple[float, float, int]] = {}
    history: list[Array] = []
    for t in range(1, epochs + 1):
        theta_N = _embed(train_epoch(theta_N), embedded)
        history.append(theta_N)
        W_TN = np.array(history)
        if t == warmup + 1:
            fit = last = posthoc(W_TN, modes, sample_K)
        elif t > warmup and t % every == 0:
            fit = Fit(fit.reference_M, fit.mode_N, *regression(W_TN, W_TN[:, fit.reference_M][:, fit.mode_N]))
            movement_N = np.hypot(fit.a_N - last.a_N, fit.b_N - last.b_N)
            moving_N = np.ptp(W_TN, axis=0) > 0
            movement_N[[*embedded, *fit.reference_M, *np.flatnonzero(~moving_N)]] = np.inf
            for i in movement_N.argsort(kind="stable")[: int(percent * moving_N.sum() / 100)].tolist():
                if np.isfinite(movement_N[i]):
                    embedded[i] = float(fit.a_N[i]), float(fit.b_N[i]), int(fit.reference_M[fit.mode_N[i]])
            last = fit
            theta_N = _embed(theta_N, embedded)
        yield theta_N, dict(embedded)


def _embed(theta_N: Array, embedded: dict[int, tuple[float, float, int]]) -> Array:
    """A copy in which the embedded weights follow their references."""
    theta_N = theta_N.copy()
    for i, (a, b, reference) in embedded.items():
        theta_N[i] = a * theta_N[reference] + b
    return theta_N
