# %% [markdown]
# # What federated methods save
#
# Ten clients train LeNet-5 on the digits, each with images of its own, and send a server their weights: all of them, in
# half precision, quantised, or all but those that follow a reference. Who gains what for how many bytes?

# %%
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

from harness import load_history

results = Path(tempfile.mkdtemp())
command = [
    Path(sys.executable).parent / "traindyn", "run", "model=lenet5", "optimizer=sgd_momentum", "batch_size=16",
    "dataset=digits", "dataset.digits.resize=16", "dataset.digits.train_size=600", "seeds=[0,1,2]", "tracker=none",
    "federation=iid_10", "epochs=16", "evaluate.every=2", "method=[base,fed_cmd,fed_frozen_random,fed_half,fedpaq]",
    "method.fed_cmd.samples=300", f"results_dir={results}",
]  # fmt: skip
subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

# %% [markdown]
# ## Accuracy against bytes
#
# `upload_bytes` and `download_bytes` are counted from what was handed over, of all clients and from the first round on:
# federated CMD and its control leave the base after a warm-up, whose bytes they are charged.

# %%
history = load_history(results)
history = history[history["val_accuracy"].notna()]
history["MB"] = (history["upload_bytes"] + history["download_bytes"]) / 1e6
means = history.groupby(["method", "epoch"])[["MB", "val_accuracy"]].mean().reset_index()
print(means.groupby("method").last().round(1).to_string())
figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
for method, own in means.groupby("method"):
    if method != "base_recalibrated":
        axes.plot(own["MB"], own["val_accuracy"], marker="o", ms=3, label=method)
axes.set_xlabel("MB of all clients, up and down")
axes.set_ylabel("validation accuracy (%)")
axes.legend(frameon=False)
axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# `traindyn report` writes the same with intervals, at equal rounds and at equal bytes, as the table `communication`.
