# %% [markdown]
# # Your own training
#
# A loop of your own leaves a folder of checkpoints. It becomes a run here, is analysed without its code, and averages
# and models of it are measured by a class of yours and given back as a checkpoint. It needs no network.

# %%
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from sklearn.datasets import load_digits
from torch import nn

from harness import load_frame

folder = Path(tempfile.mkdtemp())
traindyn = Path(sys.executable).parent / "traindyn"


def command(*words: str) -> str:
    whole = [traindyn, *words, f"results_dir={folder / 'results'}"]
    return subprocess.run(whole, check=True, stdout=subprocess.PIPE, text=True).stdout


# %% [markdown]
# ## Somebody's training
#
# Three seeds of a small network, a checkpoint after every epoch. Nothing of it knows this project.

# %%
SEEDS, EPOCHS = (0, 1, 2), 20
images, labels = map(torch.as_tensor, load_digits(return_X_y=True))
images = images.float() / 16
for seed in SEEDS:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    (folder / f"seed{seed}").mkdir()
    for epoch in range(EPOCHS):
        for batch in torch.randperm(1000).split(16):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
        state = {"epoch": epoch, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state, folder / f"seed{seed}" / f"checkpoint_{epoch}.pt")

# %% [markdown]
# ## Adopt and analyse
#
# The files are read where they lie, and nothing in them is executed.

# %%
print(command("adopt", "digits", f"from={folder}/seed{{seed}}/*.pt", f"seeds=[{','.join(map(str, SEEDS))}]"))
print(command("analyse", "digits", "figures=none").splitlines()[0])

tables = folder / "results" / "analyses" / "digits" / "tables"
path, errors = pd.read_csv(tables / "path.csv"), pd.read_csv(tables / "errors_over_time.csv")
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for seed, own in path[path["kind"] == "the run"].groupby("seed"):
    left.plot(own["first"], own["second"], marker="o", ms=3, label=f"seed {seed}")
left.set(xlabel="first principal component", ylabel="second", title="path of the weights")
left.legend(frameon=False)
fitted = errors[errors["kind"] == "fitted to the whole run"]
for name, own in fitted.groupby("model", sort=False):
    mean = own.groupby("at")["error"].mean()
    right.plot(mean.index, mean, label=name)
right.set(xlabel="epoch", ylabel="distance from the run", title="models of the run, mean of seeds", ylim=(0, None))
right.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Compare
#
# A class of yours gives the model and measures it. A command that gets the path of a checkpoint does it too, in
# whatever environment: `evaluate.command='python eval.py {checkpoint}'`.

# %%
(folder / "mine").mkdir()
(folder / "mine" / "digits.py").write_text("""
import torch
from sklearn.datasets import load_digits
from torch import nn

class Problem:
    def model(self):
        return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    @torch.no_grad()
    def evaluate(self, model):
        images, labels = map(torch.as_tensor, load_digits(return_X_y=True))
        scores = model(images[1000:].float() / 16)
        accuracy = 100 * (scores.argmax(1) == labels[1000:]).float().mean().item()
        return {"accuracy": accuracy, "loss": nn.functional.cross_entropy(scores, labels[1000:]).item()}
""")
own = ["--config-dir", str(folder / "mine"), "evaluate.callable=digits:Problem"]
command("run", "adopted=digits", "method=[base,swa,cmd_posthoc]", *own, "tracker=none")
frame = load_frame(folder / "results", "digits")
print(frame.groupby("method", sort=False)[["val_accuracy", "val_loss"]].agg(["mean", "std"]).round(3))

# %% [markdown]
# ## Give back
#
# A checkpoint in the format that came in, which your own code loads.

# %%
print(command("give", "digits", "method=swa", "seed=1", f"to={folder / 'swa.pt'}"))
given = torch.load(folder / "swa.pt", weights_only=True)
model.load_state_dict(given["model"])
print({name: value for name, value in given.items() if name != "model"})
