"""Correlation Mode Decomposition: `CMD` and `OnlineCMD` for anyone's loop, the other classes for the harness."""

from baselines.cmd.decomposition import CMD
from baselines.cmd.fit import CMDModel
from baselines.cmd.online import CMDOnline
from baselines.cmd.own_loop import OnlineCMD
from baselines.cmd.posthoc import CMDPosthoc
from baselines.cmd.weights import layout_of, weights_of

__all__ = ["CMD", "CMDModel", "CMDOnline", "CMDPosthoc", "OnlineCMD", "layout_of", "weights_of"]
