# %% [markdown]
# # CMD in your own loop
#
# `OnlineCMD` follows training, `EmbeddedCMD` trains ever fewer weights, and `CMD` models the recorded run afterwards.
# No harness is needed: this is a plain loop on scikit-learn's digits.

# %%
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

from baselines.cmd import CMD, EmbeddedCMD, OnlineCMD, weights_of

torch.manual_seed(0)
torch.set_num_threads(1)
images, labels = map(torch.as_tensor, load_digits(return_X_y=True))
images = images.float() / 16
order = torch.randperm(len(images))
train, held_out = order[:1200], order[1200:]


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


@torch.no_grad()
def accuracy(model: nn.Module) -> float:
    return 100 * (model(images[held_out]).argmax(1) == labels[held_out]).float().mean().item()


# %% [markdown]
# ## Following training
#
# `update` shows `OnlineCMD` a snapshot. From the end of its warm-up on, `applied` puts the modelled weights into the
# model for as long as the block lasts. Training is not touched.

# %%
EPOCHS, WARMUP = 40, 8
model = network()
optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
online = OnlineCMD(model, modes=8, warmup=WARMUP, forgetting=0.9)
trained, modelled, snapshots = [], [], []
for _ in range(EPOCHS):
    for batch in train[torch.randperm(len(train))].split(32):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
    online.update()
    snapshots.append(weights_of(model))
    trained.append(accuracy(model))
    with online.applied(model):
        modelled.append(accuracy(model))
print(f"trained {trained[-1]:.2f} %, online CMD {modelled[-1]:.2f} %")

# %% [markdown]
# ## The run afterwards
#
# Post-hoc CMD clusters the trajectories into modes and fits every weight to the reference of its mode. `rho_N` is
# each weight's correlation with it: where it is near 1 or -1, the weight moves as its reference does.

# %%
cmd = CMD.fit(snapshots, modes=8)
moving = cmd.rho_N != 0
print(f"{int(moving.sum())} of {len(moving)} weights move, mean |rho| {cmd.rho_N[moving].abs().mean():.2f}")

motion = torch.stack(snapshots)
model_of_it = torch.stack([cmd.reconstruct(t) for t in range(EPOCHS)])
weights = motion.std(0).topk(4).indices
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.plot(range(1, EPOCHS + 1), trained, label="trained weights")
left.plot(range(1, EPOCHS + 1), modelled, label="online CMD")
left.set(xlabel="epoch", ylabel="held-out accuracy (%)", ylim=(max(min(trained) - 1, 80), 100))
left.legend(frameon=False)
for weight in weights.tolist():
    (line,) = right.plot(range(1, EPOCHS + 1), motion[:, weight])
    right.plot(range(1, EPOCHS + 1), model_of_it[:, weight], "--", color=line.get_color())
right.set(xlabel="epoch", ylabel="weight", title="four weights, and post-hoc CMD (dashed)")
plt.show()

# %% [markdown]
# ## Training fewer weights
#
# `EmbeddedCMD` stands around the optimizer. After the warm-up, at every epoch that `every` divides, `percent` percent
# of the weights stop training and follow their reference.

# %%
model = network()
optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
embedded = EmbeddedCMD(model, optimizer, modes=8, warmup=WARMUP, every=5, percent=10)
fractions = []
for epoch in range(EPOCHS):
    for batch in train[torch.randperm(len(train))].split(32):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        embedded.after_backward()
        optimizer.step()
        embedded.after_step()
    embedded.after_epoch(last=epoch == EPOCHS - 1)
    fractions.append(embedded.trainable_fraction)
print(f"{100 * fractions[-1]:.0f} % of the moving weights still train, accuracy {accuracy(model):.2f} %")
