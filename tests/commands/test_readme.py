"""The README's snippet runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

README = Path(__file__).parents[2] / "README.md"


def test_cmd_in_your_own_loop():
    (snippet,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    x, y = torch.randn(64, 8), torch.randn(64, 1)
    seen = []
    space = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        "batches": lambda: torch.arange(64).split(16),
        "loss": lambda batch: nn.functional.mse_loss(model(x[batch]), y[batch]),
        "evaluate": lambda evaluated: seen.append(nn.functional.mse_loss(evaluated(x), y).item()),
        "epochs": 12,
    }
    exec(snippet, space)
    last_N = space["snapshots"][-1]
    assert len(seen) == 12
    assert space["embedded"].trainable_fraction < 1
    assert torch.equal(torch.cat([p.detach().reshape(-1) for p in model.parameters()]), last_N)
    # a model of the last snapshot from ten modes lies nearer to it than the plain average of all does
    mean_N = torch.stack(space["snapshots"]).mean(0)
    assert (space["theta_N"] - last_N).norm() < (mean_N - last_N).norm()
