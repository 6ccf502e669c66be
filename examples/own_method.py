# %% [markdown]
# # A method of your own
#
# A class and a preset in a folder of yours, compared with what is there. The method here is an average of the last
# epochs with linearly rising weights.

# %%
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

from harness import load_frame, load_history

folder = Path(tempfile.mkdtemp())
mine, results = folder / "mine", folder / "results"
(mine / "method").mkdir(parents=True)

# %% [markdown]
# ## The class
#
# An observer sees a snapshot after every epoch and proposes weights. Its parameters are the fields of a dataclass,
# and what it keeps is its state, so that an interrupted run can go on.

# %%
(mine / "rising_mean.py").write_text('''
from dataclasses import dataclass

from harness.method import Observer, Proposal, Run, Snapshot, State


@dataclass(eq=False)
class RisingMean(Observer):
    """The mean of w(first..t) in which the n-th snapshot counts n."""

    start: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.start < 1:
            raise ValueError(f"start must be at least 0 and below 1, got {self.start}")

    def begin(self, run: Run) -> None:
        self.first = max(1, round(self.start * run.epochs))
        self.count, self.mean_N = 0, None

    def observe(self, snapshot: Snapshot) -> None:
        if snapshot.t < self.first:
            return
        self.count += 1
        if self.mean_N is None:
            self.mean_N = snapshot.theta_N.clone()
        else:
            self.mean_N += (snapshot.theta_N - self.mean_N) * (2 / (self.count + 1))

    def propose(self) -> Proposal | None:
        return None if self.mean_N is None else Proposal(self.mean_N.clone())

    def state_dict(self) -> State:
        return {"count": self.count, "mean_N": self.mean_N}

    def load_state_dict(self, state: State) -> None:
        self.count, self.mean_N = state["count"], state["mean_N"]
''')

# %% [markdown]
# ## The preset

# %%
(mine / "method" / "rising_mean.yaml").write_text("""
rising_mean:
  _target_: rising_mean.RisingMean
  start: 0.5
  control: swa
  search: {start: {type: float, low: 0.1, high: 0.9}}
  fast: {}
""")

# %% [markdown]
# ## First without it
#
# The bases are trained, and their weights recorded.


# %%
def traindyn(*words: str) -> str:
    command = [Path(sys.executable).parent / "traindyn", *words, f"results_dir={results}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


run = ["run", "model=test_resnet", "dataset=digits", "seeds=[0,1,2]", "epochs=16", "tracker=none", "name=rising"]
traindyn(*run, "method=[base,swa,lawa]")

# %% [markdown]
# ## Then with it
#
# `plan` says that nothing is to be trained: the new method is replayed from the recorded weights.

# %%
plan = traindyn("plan", *run[1:], "--config-dir", str(mine), "method=[base,swa,lawa,rising_mean]")
print(next(line for line in plan.splitlines() if "cells:" in line))
traindyn(*run, "--config-dir", str(mine), "method=[base,swa,lawa,rising_mean]")
print(load_frame(results, "rising").groupby("method")["test_accuracy"].agg(["mean", "std"]).round(2))

# %%
history = load_history(results, "rising")
curves = history.groupby(["method", "epoch"])["val_accuracy"].mean().unstack("method")
axes = curves[["base_recalibrated", "swa", "rising_mean"]].plot(
    figsize=(6.5, 3.5), xlabel="epoch", ylabel="validation accuracy (%)"
)
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# The conformance suite holds the class to the contract: put three lines beside it and run pytest, as [Add a
# method](../add/method.md) shows.
