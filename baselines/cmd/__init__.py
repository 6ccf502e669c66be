"""Correlation Mode Decomposition: `CMD`, `OnlineCMD`, `EmbeddedCMD` for anyone's loop, the others for the harness."""

from baselines.cmd.branch import CMDEmbedded
from baselines.cmd.decomposition import CMD
from baselines.cmd.embedded import EmbeddedCMD
from baselines.cmd.fit import CMDModel
from baselines.cmd.online import CMDOnline
from baselines.cmd.own_loop import OnlineCMD
from baselines.cmd.posthoc import CMDPosthoc
from baselines.cmd.weights import layout_of, weights_of

__all__ = [
    "CMD",
    "CMDEmbedded",
    "CMDModel",
    "CMDOnline",
    "CMDPosthoc",
    "EmbeddedCMD",
    "OnlineCMD",
    "layout_of",
    "weights_of",
]
