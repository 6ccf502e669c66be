"""Dynamic mode decomposition of anyone's snapshots; the harness runs `baselines.dmd_*`."""

from baselines.dmd.decomposition import DMD
from baselines.dmd.dynamics import Dynamics

__all__ = ["DMD", "Dynamics"]
