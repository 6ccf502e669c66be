"""What the test images say of differences: the error that all seeds share through them, and McNemar's test in a seed.

All seeds of a base are evaluated on the same images, so a method that suits these images by chance seems better with
every seed. Write x_si for the difference of two cells on image i with seed s, 1 where only the method gets it right, -1
where only the control does. Of its variance what is common to all seeds is the mean covariance of two seeds over the
images; divided by the number of images it is the variance that the mean difference has from them. It is the images'
component of variance in a two-way layout of seeds and images, and is 0 where it would come out negative.

Within one seed McNemar's test asks whether two trained models differ on images of this kind. It says nothing of other
seeds: two runs of one method differ too.

Shape suffixes: I images, S seeds, B bytes, C pairs of cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from harness.results.columns import ROW

Signs = NDArray[np.int16]


class TestImages:
    """Which test images every cell of a frame got right, from `harness.results.correct.correct_table`."""

    __test__ = False  # no class of tests, whatever it is called

    def __init__(self, correct: pd.DataFrame | None = None) -> None:
        self._bits: dict[str, tuple[int, NDArray[np.uint8]]] = {}
        if correct is not None:
            names = ("cell_key", "images", "bits")
            for key, images, bits in zip(*(correct[name].tolist() for name in names), strict=True):
                self._bits[key] = int(images), np.frombuffer(bits, np.uint8)

    def number(self, cells: Sequence[str]) -> int:
        """The number of images of all these cells; 0 where they are not known of each, or are of several splits."""
        numbers = {self._bits[key][0] if key in self._bits else 0 for key in cells}
        return numbers.pop() if len(numbers) == 1 else 0

    def bits(self, cells: Sequence[str]) -> NDArray[np.uint8]:
        """The packed bits of cells of one number of images, (C, B)."""
        return np.stack([self._bits[key][1] for key in cells])

    def signs(self, methods: Sequence[str], controls: Sequence[str]) -> Signs | None:
        """x_si of cells and their controls, (S, I), 1, 0 or -1; None where the images of one are not known."""
        images = self.number([*methods, *controls])
        if not images:
            return None
        right, control = (np.unpackbits(self.bits(cells), axis=1, count=images) for cells in (methods, controls))
        return right.astype(np.int16) - control


def shared_variance(x_SI: NDArray[Any]) -> float:
    """The variance that the mean of x over seeds and images has from the images, in the square of percent.

    0 with one seed, where it cannot be told from the seed's own.
    """
    S, I = x_SI.shape  # noqa: E741
    if S < 2 or I < 2:
        return 0.0
    total_I = x_SI.sum(axis=0, dtype=np.float64)
    of_total = float(((total_I - total_I.mean()) ** 2).sum())
    means_S = x_SI.mean(axis=1, dtype=np.float64)
    # The sum of squares about each seed's mean, without a floating-point copy of x.
    of_seeds = float((np.square(x_SI).sum(axis=1, dtype=np.float64) - I * means_S**2).sum())
    covariance = (of_total - of_seeds) / (S * (S - 1) * (I - 1))
    return float(max(0.0, 1e4 * covariance / I))


def exact_mcnemar(only_C: NDArray[np.int64], other_C: NDArray[np.int64]) -> NDArray[np.float64]:
    """Two-sided exact binomial p values, (C,), from the images that only the one or only the other gets right."""
    fewer_C, both_C = np.minimum(only_C, other_C), only_C + other_C
    p_C = 2 * special.bdtr(fewer_C.astype(np.float64), both_C, 0.5)
    return np.asarray(np.minimum(1.0, p_C), dtype=np.float64)


IMAGES = [*ROW, "seed", "method", "control", "images", "only_method", "only_control", "p", "cell_key", "control_cell"]
"""The columns of `mcnemar`."""


def mcnemar(pairs: pd.DataFrame, images: TestImages) -> pd.DataFrame:
    """McNemar's exact test of every pair of cells whose images are known, one line each: IMAGES.

    `pairs` has the columns of ROW, seed, method, control, cell_key and control_cell. `only_method` and `only_control`
    are the numbers of images that one of the two alone gets right; p is not adjusted.
    """
    keys = zip(pairs["cell_key"], pairs["control_cell"], strict=True)
    known = pairs.assign(images=[images.number(pair) for pair in keys])
    known = known[known["images"] > 0]
    parts = []
    for _, own in known.groupby("images", sort=False):
        right, control = images.bits(own["cell_key"].tolist()), images.bits(own["control_cell"].tolist())
        only = np.bitwise_count(right & ~control).sum(axis=1, dtype=np.int64)
        other = np.bitwise_count(control & ~right).sum(axis=1, dtype=np.int64)
        parts.append(own.assign(only_method=only, only_control=other, p=exact_mcnemar(only, other)))
    return pd.concat(parts).sort_index()[IMAGES] if parts else pd.DataFrame(columns=IMAGES)
