"""The public classes run where neither the harness's other modules nor its other dependencies can be imported."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
NEEDED = ("torch", "numpy", "scipy", "pandas")
PROGRAM = '''
import sys

class Without:
    """A finder of modules that does not find what is refused."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        top, *inner = name.split(".")
        if top in refused or (top == "harness" and inner[:1] not in ALLOWED):
            return None
        return self.finder.find_spec(name, path, target)

ALLOWED = ([], ["method"], ["averaging"], ["snapshots"], ["weights"])  # the contract uses `averaging`
refused = set(sys.argv[1:])
sys.meta_path[:] = map(Without, sys.meta_path)

import torch
from torch import nn

from baselines.averages import EMA, LAWA, PostHocEMA, PowerEMA, TwoTailed, UniformMean
from baselines.bfgs import BFGS
from baselines.cmd import CMD, EmbeddedCMD, OnlineCMD, load_weights, recalibrate, weights_of
from baselines.dmd import DMD
from baselines.subspace import Subspace

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
online = OnlineCMD(model, modes=3, warmup=3, samples=40)
embedded = EmbeddedCMD(model, optimizer, modes=3, samples=40, warmup=3, every=2, percent=20)
size = lambda target: float(weights_of(target).norm())
averages = [UniformMean(model), EMA(model, 2), PowerEMA(model), LAWA(model), PostHocEMA(model, 2)]
averages.append(TwoTailed(model, size, 2))
snapshots = []
for epoch in range(8):
    optimizer.zero_grad()
    model(torch.randn(16, 4)).square().mean().backward()
    embedded.after_backward()
    optimizer.step()
    embedded.after_step()
    embedded.after_epoch()
    online.update()
    for average in averages:
        average.update()
    snapshots.append(weights_of(model))
snapshots_TN = torch.stack(snapshots)
with online.applied() as ready:
    assert ready
    assert not torch.equal(weights_of(model), snapshots_TN[-1])
assert all(average.weights().shape == snapshots_TN[0].shape for average in averages)
assert embedded.tables()["windows"]["embedded"].tolist() == [13, 26]
theta_N = CMD.fit(snapshots, modes=3, samples=40).reconstruct(7)
load_weights(model, theta_N)
recalibrate(model, [torch.randn(16, 4), torch.randn(16, 4)])
assert torch.equal(weights_of(model), theta_N)
assert model[1].num_batches_tracked == 2
assert DMD.fit(snapshots_TN, rank=2).forecast(3).shape == snapshots_TN[7].shape
subspace = Subspace.fit(snapshots_TN, dimensions=2)
assert subspace.project(subspace.lift(torch.ones(2))).allclose(torch.ones(2), atol=1e-5)
square = lambda z_D: float(z_D @ z_D)
step = BFGS(2).step(torch.ones(2, dtype=torch.float64), square, lambda z_D: (square(z_D), 2 * z_D))
assert step.accepted
for name in ("hydra", "omegaconf", "pydantic", "wandb", "optuna", "timm", "sklearn", "safetensors", "harness.config"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise AssertionError(f"{name} could be imported")
'''


def others():
    """Top-level modules of all that is installed, but for NEEDED, what these require, and this project."""
    pending, needed = list(NEEDED), {"traindyn"}
    while pending:
        name = pending.pop()
        if name not in needed and name in installed():
            needed.add(name)
            required = map(Requirement, metadata.requires(name) or [])
            pending += [canonicalize_name(one.name) for one in required if one.marker is None or one.marker.evaluate()]
    return sorted(
        module
        for module, owners in metadata.packages_distributions().items()
        if not needed & {canonicalize_name(owner) for owner in owners}
    )


def installed():
    return {canonicalize_name(one.name) for one in metadata.distributions()}


def test_public_classes_need_torch_numpy_scipy_and_pandas_alone():
    command = [sys.executable, "-c", PROGRAM, *others()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
