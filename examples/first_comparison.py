# %% [markdown]
# # A first comparison
#
# Five methods on a small ResNet and scikit-learn's digits, three seeds, and the results in pandas. It needs no
# network.

# %%
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from harness import load_frame, load_history

# %% [markdown]
# The command is the same in a terminal. Every seed is one training run, which all methods share. The recalibrated
# base and the control of online CMD run beside the chosen methods by themselves.

# %%
folder = Path(tempfile.mkdtemp())
command = [
    Path(sys.executable).parent / "traindyn", "run", "model=test_resnet", "dataset=digits", "optimizer=sgd_momentum",
    "method=[base,swa,cmd_online]", "seeds=[0,1,2]", "epochs=20", "tracker=none", "name=digits",
    f"results_dir={folder}",
]  # fmt: skip
subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

# %% [markdown]
# One row per cell, that is per method and seed. Accuracies are in percent.

# %%
frame = load_frame(folder, "digits")
table = frame.pivot(index="method", columns="seed", values="test_accuracy").round(2)
print(table)

# %% [markdown]
# All methods of a seed saw the same run, so differences are taken within a seed. That drops the noise between seeds.

# %%
differences = table.sub(table.loc["base_recalibrated"], axis=1).drop(index="base_recalibrated")
print(pd.DataFrame({"mean": differences.mean(axis=1), "std": differences.std(axis=1)}).round(2))

# %% [markdown]
# Curves by epoch are in the history. `traindyn report name=digits` draws these and more, with intervals and verdicts.

# %%
history = load_history(folder, "digits")
curves = history.groupby(["method", "epoch"])["val_accuracy"].mean().unstack("method")
axes = curves.plot(figsize=(6.5, 3.5), xlabel="epoch", ylabel="validation accuracy (%)")
axes.legend(frameon=False)
plt.show()
