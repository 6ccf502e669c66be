"""Dynamic mode decomposition of weights: `DMD` for anyone's snapshots, the others for the harness."""

from baselines.dmd.decomposition import DMD
from baselines.dmd.dynamics import Dynamics
from baselines.dmd.forecast import DMDForecast
from baselines.dmd.jumps import DMDJumps
from baselines.dmd.posthoc import DMDReconstruction
from baselines.dmd.references import DMDOfReferences

__all__ = ["DMD", "DMDForecast", "DMDJumps", "DMDOfReferences", "DMDReconstruction", "Dynamics"]
