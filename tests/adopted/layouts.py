"""Checkpoints as other libraries write them, by hand: a small model with BatchNorm and a tied embedding."""

import argparse
import json
import warnings
from copy import deepcopy
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import cross_entropy

STEPS = 10
"""between two snapshots"""


class Words(nn.Module):
    """Predicts the next of seven words; its head is its embedding."""

    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(7, 4)
        self.norm = nn.BatchNorm1d(4)
        self.lm_head = nn.Linear(4, 7, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, words):
        return self.lm_head(self.norm(self.wte(words)))


def trained(snapshots=6, seed=0, dtype=torch.float32):
    """State dicts of w(0), w(1), ... with the optimizer's states."""
    torch.manual_seed(seed)
    model = Words()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    found = []
    for _ in range(snapshots + 1):
        states = {name: t.to(dtype) if t.is_floating_point() else t for name, t in model.state_dict().items()}
        found.append((deepcopy(states), deepcopy(optimizer.state_dict())))
        words = torch.randint(0, 7, (32,))
        optimizer.zero_grad()
        cross_entropy(model(words), (words + 1) % 7).backward()
        optimizer.step()
    return found


def without_tied(states):
    return {name: t.clone() for name, t in states.items() if name != "lm_head.weight"}


def plain(folder, runs, t):
    states, optimizer = runs[t]
    torch.save({"global_step": STEPS * t, "model_state_dict": states, "optimizer": optimizer}, folder / f"c{t}.pt")


def legacy(folder, runs, t):
    states, optimizer = runs[t]
    value = {"global_step": STEPS * t, "model_state_dict": states, "optimizer": optimizer}
    torch.save(value, folder / f"c{t}.pt", _use_new_zipfile_serialization=False)


def lightning(folder, runs, t):
    states, optimizer = runs[t]
    value = {"epoch": t, "global_step": STEPS * t, "state_dict": states, "optimizer_states": [optimizer]}
    inside = folder / f"epoch={t}-val"  # what a slash in a pattern of names makes
    inside.mkdir()
    torch.save(value | {"hyper_parameters": {"mine": argparse.Namespace(a=1)}}, inside / f"loss={1 / (t + 1):.2f}.ckpt")


def safetensors(folder, runs, t):
    save_file(without_tied(runs[t][0]), folder / f"step_{STEPS * t}.safetensors")


def trainer(folder, runs, t):
    """Hugging Face's Trainer, with what lies beside the weights."""
    inside = folder / f"checkpoint-{STEPS * t}"
    inside.mkdir()
    save_file(without_tied(runs[t][0]), inside / "model.safetensors", {"format": "pt"})
    torch.save(runs[t][1], inside / "optimizer.pt")
    (inside / "config.json").write_text(json.dumps({"model_type": "words", "dtype": "float32"}))
    _state(inside, t)


def _state(inside, t):
    log = [{"step": STEPS * s, "epoch": float(s), "loss": 2.0 / s, "eval_loss": 3.0 / s} for s in range(1, t + 1)]
    state = {"global_step": STEPS * t, "epoch": float(t), "log_history": log}
    (inside / "trainer_state.json").write_text(json.dumps(state))


def shards(folder, runs, t):
    """Two files of safetensors with an index."""
    inside = folder / f"checkpoint-{STEPS * t}"
    inside.mkdir()
    states = without_tied(runs[t][0])
    parts = {"model-00001-of-00002.safetensors": {}, "model-00002-of-00002.safetensors": {}}
    for index, (name, tensor) in enumerate(states.items()):
        parts[[*parts][index % 2]][name] = tensor
    for name, tensors in parts.items():
        save_file(tensors, inside / name)
    places = {name: part for part, tensors in parts.items() for name in tensors}
    (inside / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    _state(inside, t)


def distributed(folder, runs, t):
    import torch.distributed.checkpoint as dcp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one process
        dcp.save({"model": runs[t][0], "step": STEPS * t}, checkpoint_id=str(folder / f"c{t}"))


def deepspeed(folder, runs, t):
    inside = folder / f"save{t}" / f"global_step{STEPS * t}"
    inside.mkdir(parents=True)
    (inside.parent / "latest").write_text(f"global_step{STEPS * t}")
    value = {"module": runs[t][0], "global_steps": STEPS * t, "global_step": STEPS * t}
    torch.save(value, inside / "mp_rank_00_model_states.pt")


LAYOUTS = {
    one.__name__: one for one in (plain, legacy, lightning, safetensors, trainer, shards, distributed, deepspeed)
}


def written(folder, layout, runs=None, ts=None):
    """A run in one layout, in a new folder, which is returned."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    runs = trained() if runs is None else runs
    for t in range(len(runs)) if ts is None else ts:
        LAYOUTS[layout](folder, runs, t)
    return folder


def listing(folder):
    """Every file below a folder with its size and time, and its folders."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        state = path.stat()
        found[str(path.relative_to(folder))] = (state.st_size, state.st_mtime_ns, path.is_dir())
    return found
