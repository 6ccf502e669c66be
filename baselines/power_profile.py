"""Power-function averages: weights t^g over optimizer steps t, whatever the length of the run.

Karras et al., Analyzing and Improving the Training Dynamics of Diffusion Models (CVPR 2024), section 3 and appendix C.
An average is named by the width sigma of its profile as a share of the run, its standard deviation about its mean; two
averages of other widths, taken at some steps, give any third one by a least-squares fit of profiles.

Shape suffixes: K stored averages.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from baselines.parameters import check_between

WIDEST = 1 / math.sqrt(12)
"""sigma of the uniform mean, g = 0"""


def check_sigma(name: str, sigma: float) -> None:
    """ValueError unless a width lies between 0 and that of the uniform mean."""
    check_between(name, sigma, 0, WIDEST)


def exponent(sigma: float) -> float:
    """g of the profile of width sigma = sqrt(g + 1) / ((g + 2) sqrt(g + 3)): the largest real root of
    g^3 + 7 g^2 + (16 - sigma^-2) g + 12 - sigma^-2."""
    roots = np.roots([1.0, 7.0, 16.0 - sigma**-2, 12.0 - sigma**-2])
    return float(np.max(roots.real[np.abs(roots.imag) < 1e-6 * np.abs(roots.real).max()]))


def width(g: float) -> float:
    """sigma of the profile with the exponent g."""
    return math.sqrt(g + 1) / ((g + 2) * math.sqrt(g + 3))


def share(t: int, g: float) -> float:
    """What the state after step t has of the average after it: 1 - (1 - 1/t)^(g+1)."""
    return 1.0 if t == 1 else -math.expm1((g + 1) * math.log1p(-1 / t))


def products(g_K: Tensor, t_K: Tensor, g_J: Tensor, t_J: Tensor) -> Tensor:
    """Inner products (K, J) of the profiles p(s) = (g + 1) s^g / t^(g+1) on 0..t, float64."""
    ga, ta = g_K.double()[:, None], t_K.double()[:, None]
    gb, tb = g_J.double()[None], t_J.double()[None]
    power = torch.where(ta < tb, gb, -ga)
    return (ga + 1) * (gb + 1) * (ta / tb) ** power / ((ga + gb + 1) * torch.maximum(ta, tb))


def combination(g_K: Tensor, t_K: Tensor, g: float, t: int) -> Tensor:
    """Coefficients (K,) of stored averages, (g, t) each, that come closest to the average of exponent g after step t.

    Least squares of profiles, divided by the sum: float64. Directions that rounding alone tells apart are left out.
    """
    A_KK = products(g_K, t_K, g_K, t_K)
    b_K = products(g_K, t_K, torch.tensor([g]), torch.tensor([t]))[:, 0]
    scale_K = A_KK.diagonal().rsqrt()
    scaled_KK = scale_K[:, None] * A_KK * scale_K
    x_K: Tensor = scale_K * (torch.linalg.pinv(scaled_KK, rtol=RESOLVED, hermitian=True) @ (scale_K * b_K))
    return x_K / x_K.sum()


RESOLVED = 1e-12
"""least eigenvalue that counts, beside the largest"""
