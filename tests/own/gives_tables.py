"""A user's own reconstruction: the last weights; it gives every table that the report draws, and a plane."""

import pandas as pd
import torch

from harness.method import Plane, Proposal, Reconstruction

WEIGHTS = (0, 1, 2, 3)


class GivesTables(Reconstruction):
    """The weights of w(T), whatever the epoch; with `whole: false` its tables lack columns."""

    def __init__(self, whole: bool = True) -> None:
        self.whole = whole

    def fit(self, run):
        self.layout, self.ts = run.layout, run.trajectory.ts
        self.W_TN = torch.stack([run.trajectory[place].theta_N for place in range(len(self.ts))])

    def reconstruct(self, t):
        return Proposal(self.W_TN[-1].clone())

    def tables(self):
        tensor = self.layout.names[0]
        sample = {"position": range(4), "mode": [0, 0, 1, 1], "weight": WEIGHTS, "tensor": tensor}
        values = {"epoch": self.ts, "base": self.W_TN[:, 0].numpy(), "halves": self.W_TN[:, 0].numpy() / 2}
        modes, moved = ["0", "1", "surrogate"], [3, 1, 9]
        found = {
            "sample": pd.DataFrame({**sample, "reference": [True, False, True, False]}),
            "correlation": pd.DataFrame({"position": [0, 2], "0": [1.0, 0.25], "2": [0.25, 1.0]}),
            "layers": pd.DataFrame({"tensor": tensor, "mode": [0, 1], "weights": [3, 1], "share": [75.0, 25.0]}),
            "rho": pd.DataFrame({"mode": modes, "mean_abs_rho": 0.5, "low": 0.0, "high": 1.0, "weights": moved}),
            "trajectories": pd.DataFrame({"weight": 0, "tensor": tensor, "mode": 0, "rho": -0.5, **values}),
            "errors": pd.DataFrame(
                {"fit": ["mine", "bound", "bound"], "dimension": [2, 1, 2], "share": [0.5, 0.3, 0.1]}
            ),
            "eigenvalues": pd.DataFrame({"real": [0.5], "imaginary": [0.1]}),
        }
        return found if self.whole else {name: table.iloc[:, :-1] for name, table in found.items()}

    def plane(self):
        motion_2N = torch.stack([self.W_TN[-1] - self.W_TN[0], self.W_TN[1] - self.W_TN[0]])
        path_T2 = torch.stack([torch.linspace(0, 1, len(self.ts)), torch.zeros(len(self.ts))], 1)
        path_T2[1, 1] = 1.0
        return Plane(self.W_TN[0], motion_2N, path_T2, self.ts, ("all of the motion", "the first epoch's"))
