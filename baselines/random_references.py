"""CMD whose references are drawn at random: the control for clustering.

Post-hoc CMD (Brokman et al., ICLR 2024) clusters a sample of weights and takes the most central of every cluster. Here
as many references are drawn from the same sample, by chance alone; every weight then joins the one that it correlates
with most, and is regressed on it, as there. What CMD gains over this method, its clustering gives. With one mode it is
unstable: everything hangs on one weight.

Shape suffixes: T snapshots, K sampled weights, M modes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from baselines.cmd.clustering import abs_correlation
from baselines.cmd.posthoc import FindModes
from baselines.cmd_posthoc import CMDPosthoc
from harness.method import Run


@dataclass(eq=False)
class RandomReferences(CMDPosthoc):
    """Post-hoc CMD with `modes` references drawn from its `samples` weights; all of them where fewer have moved.

    The other parameters, and ValueError, as for `CMDPosthoc`.
    """

    analyses: ClassVar[bool] = False

    def _find(self, run: Run) -> FindModes:
        return lambda x_TK, modes: draw_modes(x_TK, modes, run.rng("cmd/references"))


def draw_modes(x_TK: Tensor, modes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """As `find_modes`, for references drawn by the generator: every sampled weight's mode, and the references.

    A sampled weight is of the mode with whose reference it correlates most; the mode with the most of them comes first.
    """
    chosen_M = torch.randperm(x_TK.shape[1], generator=generator)[:modes]
    mode_K = abs_correlation(x_TK)[:, chosen_M.to(x_TK.device)].argmax(1).cpu()
    number_M = torch.bincount(mode_K, minlength=len(chosen_M)).argsort(descending=True, stable=True)
    return number_M.argsort()[mode_K], chosen_M[number_M]
