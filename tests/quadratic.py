"""A session without the harness for branchers: a convex quadratic whose mini-batches shift its minimum, in float64.

The loss of mini-batch k at theta is theta' A theta / 2 - c_k' theta. Counts what is asked of it.
"""

import numpy as np
import torch

from harness.method import Batch, Branch
from harness.snapshots import MemoryTrajectory


class QuadraticSession:
    """`T` random snapshots of `N` weights as the trajectory; every epoch has the mini-batches 0..batches-1."""

    def __init__(self, N=12, T=6, batches=3, noise=0.0, seed=0):
        rng = np.random.default_rng(seed)
        factor_NN = rng.standard_normal((N, N))
        self.A_NN = torch.tensor(factor_NN @ factor_NN.T / N + 0.1 * np.eye(N))
        self.c_KN = torch.tensor(rng.standard_normal(N) + noise * rng.standard_normal((batches, N)))
        self.snapshots_TN = torch.tensor(rng.standard_normal((T, N)), dtype=torch.float32)
        self.trajectory = MemoryTrajectory(self.snapshots_TN)
        self.theta_N = self.snapshots_TN[0].double()
        self.parameters = []
        self.branch = Branch(0, 0, 3)
        self.t = 0
        self.losses = self.gradients = 0
        self.optimizer = None
        self._epochs = 0

    def batches(self, batch_size=None, augment=True):
        for k in range(len(self.c_KN)):
            yield Batch(torch.empty(0), torch.tensor(k), seed=k)

    def value(self, theta_N, k):
        theta_N = theta_N.double()
        return float(theta_N @ self.A_NN @ theta_N / 2 - self.c_KN[k] @ theta_N)

    def slope_N(self, theta_N, k):
        return self.A_NN @ theta_N.double() - self.c_KN[k]

    def loss(self, batch):
        self.losses += 1
        return self.value(self.theta_N, int(batch.labels_B))

    def gradient(self, batch):
        self.gradients += 1
        k = int(batch.labels_B)
        return self.value(self.theta_N, k), self.slope_N(self.theta_N, k).to(self.theta_N.dtype)

    def new_optimizer(self, factory, schedule=None, **settings):
        self.optimizer, self._schedule = factory([], **settings), schedule
        self._rate = settings["lr"]
        return self.optimizer

    def train_epoch(self, batch_size=None, augment=True, after_backward=None, after_step=None):
        for k in range(len(self.c_KN)):
            self.optimizer.param_groups[0]["lr"] = self._rate * self._schedule(self._epochs + (k + 1) / len(self.c_KN))
            self.optimizer.zero_grad()
            self.gradient_N = self.slope_N(self.theta_N, k).float()
            after_backward()
            self.optimizer.step()
            after_step()
        self._epochs += 1
