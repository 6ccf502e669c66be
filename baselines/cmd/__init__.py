"""Correlation Mode Decomposition."""

from baselines.cmd.embedded import EmbeddedCMD
from baselines.cmd.fit import CMDModel
from baselines.cmd.online import CMDOnline
from baselines.cmd.posthoc import CMDPosthoc

__all__ = ["CMDModel", "CMDOnline", "CMDPosthoc", "EmbeddedCMD"]
