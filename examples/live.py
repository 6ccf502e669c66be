# %% [markdown]
# # Your own training, live
#
# A plain loop on scikit-learn's digits, with a network that has BatchNorm. `Watch` shows it to three observers while it
# trains, `Recorder` keeps snapshots, and what the observers propose is evaluated beside the trained weights.

# %%
import tempfile

import matplotlib.pyplot as plt
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch import nn

from baselines.cmd_online import CMDOnline
from baselines.ema import EMA
from baselines.swa import SWA
from harness.live import Recorder, Watch, load_weights, recalibrate

torch.manual_seed(0)
torch.set_num_threads(1)
images, labels = map(torch.as_tensor, load_digits(return_X_y=True))
images = images.float() / 16
order = torch.randperm(len(images))
train, held_out = order[:1200], order[1200:]
EPOCHS, BATCH = 40, 60
STEPS = len(train) // BATCH


@torch.no_grad()
def loss_of(model: nn.Module) -> float:
    return nn.functional.cross_entropy(model.eval()(images[held_out]), labels[held_out]).item()


# %% [markdown]
# ## Training
#
# The rate is constant and weights decay, so that the trained weights never come to rest. Inside `applied` the model has
# the proposed weights, whose running statistics `recalibrate` takes from training data; afterwards it is as it was, and
# so are the random streams. The loop trains as it would alone.

# %%
model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, weight_decay=5e-3)
folder = tempfile.TemporaryDirectory()
recorder = Recorder(model, folder.name)
watches = {
    "EMA": Watch(model, EMA(half_life=1.5), EPOCHS, STEPS),
    "SWA": Watch(model, SWA(start=0.5), EPOCHS),
    "online CMD": Watch(model, CMDOnline(modes=8, warmup=8, forgetting=0.9), EPOCHS),
}
curves = {name: [] for name in ("trained weights", *watches)}
for epoch in range(1, EPOCHS + 1):
    model.train()
    for batch in train[torch.randperm(len(train))].split(BATCH):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
        watches["EMA"].update()  # which watches steps
    watches["SWA"].update()
    watches["online CMD"].update()
    curves["trained weights"].append(loss_of(model))
    recorder.record(epoch * STEPS, epoch, {"held_out_loss": curves["trained weights"][-1]})
    for name, watch in watches.items():
        with watch.applied(model) as ready:
            if ready:
                recalibrate(model, images[train].split(400))
            curves[name].append(loss_of(model) if ready else float("nan"))

figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
for name, losses in curves.items():
    axes.plot(range(1, EPOCHS + 1), losses, label=name)
    print(f"{name}: held-out loss {losses[-1]:.3f}")
axes.set(xlabel="epoch", ylabel="held-out loss", yscale="log")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Afterwards
#
# The averaged weights as the model's own, and the snapshots: how far the weights still move in an epoch.

# %%
load_weights(model, watches["EMA"].weights())
recalibrate(model, images[train].split(400))
print(f"EMA in the model: held-out loss {loss_of(model):.3f}")

names = [f"{folder.name}/step-{epoch * STEPS:08d}.safetensors" for epoch in range(EPOCHS + 1)]
first_layer = torch.stack([load_file(name)["0.weight"].flatten() for name in names])
moved = first_layer.diff(dim=0).norm(dim=1) / first_layer[1:].norm(dim=1)
print(f"the first layer moves by {100 * moved[1]:.0f} % in epoch 2, by {100 * moved[-1]:.1f} % in epoch {EPOCHS}")
