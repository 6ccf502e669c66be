"""Correlation Mode Decomposition for anyone's snapshots and training loops; the harness runs `baselines.cmd_*`."""

from baselines.cmd.embedded import EmbeddedCMD
from baselines.cmd.online import OnlineCMD
from baselines.cmd.posthoc import CMD
from harness.snapshots import layout_of, weights_of
from harness.weights import load_weights, recalibrate

__all__ = ["CMD", "EmbeddedCMD", "OnlineCMD", "layout_of", "load_weights", "recalibrate", "weights_of"]
