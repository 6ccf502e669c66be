"""The sampling of CMD against its definition: quotas per tensor, distinct weights that moved, every set as likely."""

from collections import Counter

import numpy as np
import pytest
import torch

from baselines.cmd.sampling import constant_weights, draw, sample_weights, stratified_counts
from harness.method import Layout, Snapshot
from harness.snapshots import MemoryTrajectory

NONE = torch.empty(0, dtype=torch.int64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def layout(sizes):
    return Layout(tuple(f"tensor{i}" for i in range(len(sizes))), tuple((size,) for size in sizes))


def by_definition(sizes, moving, samples):
    """Quotas, then what is left one by one, looking at every tensor each time."""
    L, N = len(sizes), sum(sizes)
    counts = [min(m, samples // (2 * L) + samples * n // (2 * N)) for n, m in zip(sizes, moving, strict=True)]
    while sum(counts) < min(samples, sum(moving)):
        open_tensors = [i for i in range(L) if counts[i] < moving[i]]
        counts[min(open_tensors, key=lambda i: counts[i])] += 1
    return counts


@pytest.mark.parametrize("seed", range(30))
def test_counts_follow_the_definition(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 10 ** int(rng.integers(1, 5)), size=rng.integers(1, 40)).tolist()
    moving = [int(rng.integers(0, n + 1)) if rng.random() < 0.3 else n for n in sizes]
    samples = int(rng.integers(1, sum(sizes) + 10))
    assert stratified_counts(sizes, moving, samples) == by_definition(sizes, moving, samples)


def test_counts_worked_by_hand():
    """K = 20, L = 3, N = 106: floor(20/6) = 3 each, plus floor(20 n / 212) = 9, 0, 0; the two tensors of 3 are full,
    so the 2 that rounding leaves go to the large one."""
    assert stratified_counts([100, 3, 3], [100, 3, 3], 20) == [14, 3, 3]
    assert stratified_counts([100, 50, 50], [100, 50, 50], 21) == [8, 7, 6]


@pytest.mark.parametrize("seed", range(20))
def test_samples_are_distinct_moving_and_stratified(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 60, size=6).tolist()
    N = sum(sizes)
    constant = np.sort(rng.choice(N, N // 4, replace=False))
    samples = int(rng.integers(12, N))
    sample = sample_weights(N, layout(sizes), samples, torch.from_numpy(constant), generator(seed)).numpy()
    assert (np.diff(sample) > 0).all()
    assert not np.isin(sample, constant).any()
    ends = np.cumsum(sizes)
    tensor_of = np.searchsorted(ends, np.arange(N), side="right")
    moving = np.bincount(np.delete(tensor_of, constant), minlength=6)
    counts = np.bincount(tensor_of[sample], minlength=6)
    assert counts.tolist() == by_definition(sizes, moving.tolist(), samples)


def test_every_moving_weight_is_taken_where_more_are_asked_for():
    constant = torch.tensor([0, 3, 9])
    assert sample_weights(10, layout([4, 6]), 100, constant, generator()).tolist() == [1, 2, 4, 5, 6, 7, 8]
    assert sample_weights(10, None, 7, constant, generator()).tolist() == [1, 2, 4, 5, 6, 7, 8]
    assert sample_weights(2, layout([2]), 5, torch.tensor([0, 1]), generator()).tolist() == []


def test_few_samples_or_no_layout_are_plainly_uniform():
    """Below two samples per tensor a scalar tensor has no share of its own: 4 of 1000 rarely meet it."""
    sizes = [1, 1, 998]
    hits = Counter()
    for seed in range(400):
        for name, its_layout in (("layout", layout(sizes)), ("none", None)):
            hits[name] += int((sample_weights(1000, its_layout, 4, NONE, generator(seed)) < 2).sum())
        hits["stratified"] += int((sample_weights(1000, layout(sizes), 6, NONE, generator(seed)) < 2).sum())
    assert hits["layout"] == hits["none"] < 20
    assert hits["stratified"] == 800


def test_draws_are_uniform_over_sets():
    """4000 draws of 2 out of 4: six sets, each expected 667 times with a standard deviation of 24."""
    source = generator()
    counts = Counter(tuple(draw(4, 2, source).tolist()) for _ in range(4000))
    assert len(counts) == 6
    assert all(abs(count - 4000 / 6) < 5 * 24 for count in counts.values())


def test_a_seed_repeats_and_another_differs():
    first, again, other = (sample_weights(5000, None, 50, NONE, generator(seed)).tolist() for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("max_bytes", [1, 100, 1 << 20])
def test_constant_weights_equal_their_first_value_throughout(max_bytes):
    rows_TN = np.random.default_rng(0).integers(0, 2, size=(5, 60)).astype(np.float32)
    snapshots = MemoryTrajectory.of([Snapshot(t, t, torch.from_numpy(row_N), {}) for t, row_N in enumerate(rows_TN)])
    expected = np.flatnonzero((rows_TN == rows_TN[0]).all(0))
    assert len(expected) > 0
    assert constant_weights(snapshots, None, max_bytes).tolist() == expected.tolist()
