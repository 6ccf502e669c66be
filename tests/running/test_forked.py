"""What happens to a GPU before processes are forked, and what a compiler makes of weights that lie in one vector."""

import subprocess
import sys

import pytest
import torch
from command import SECONDS

from harness.planning.compose import Request
from harness.planning.resolve import resolve
from harness.problem.splits import load_split
from harness.snapshots import weights_of
from harness.training.loop import Trainer

ASKS = """
import importlib
import torch

def asked(name):
    def ask(*arguments):
        raise SystemExit(f"{module} asked for the GPU: {name}")
    return ask

for name in ("_cuda_init", "_cuda_getDeviceCount"):
    setattr(torch._C, name, asked(name))
from harness.running.engine import local
taken = []
local.multiprocessing.set_forkserver_preload = taken.extend
local.multiprocessing.forkserver.ensure_running = lambda: None
module = "the engine"
local.warm_up()
assert "harness.running.jobs" in taken
for module in taken:
    importlib.import_module(module)
print(len(taken))
"""
"""After either of torch's two doors to the driver no forked process can use a GPU."""


@pytest.mark.long
@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="torch without CUDA never asks for it")
def test_the_server_that_jobs_are_forked_from_never_asks_for_the_gpu():
    done = subprocess.run([sys.executable, "-c", ASKS], capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 5


@pytest.mark.long
def test_compiled_training_keeps_weights_in_one_vector():
    """In every step they are read and written where the vector lies, and numbers are the uncompiled ones nearly."""
    ends = []
    for compiled in ("false", "true"):
        study = resolve(Request(("dataset=digits", "method=base", "fast=true", f"compile={compiled}")), "a test")
        base = study.bases[0][0]
        trainer = Trainer(base, load_split(base.dataset, "train"), torch.device("cpu"))
        storage = trainer.flat.theta_N.untyped_storage().data_ptr()
        start_N = trainer.flat.theta_N.clone()
        for _ in range(2):
            trainer.train_epoch()
        assert all(p.untyped_storage().data_ptr() == storage for p in trainer.model.parameters())
        assert torch.equal(weights_of(trainer.model), trainer.flat.theta_N)
        ends.append(trainer.flat.theta_N - start_N)
    assert (ends[0] - ends[1]).norm() < 1e-3 * ends[0].norm()
