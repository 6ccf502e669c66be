"""Every image is one client's, dealt as the specification of each kind says."""

from dataclasses import replace

import numpy as np
import pytest

from harness.config import ConfigError, FederationConfig
from harness.problem.partition import deal, digest_of
from harness.randomness import derive

LABELS = np.random.default_rng(0).integers(0, 10, 1003)
KINDS = [
    FederationConfig("iid", 7),
    FederationConfig("dirichlet", 7, partition="dirichlet", alpha=0.5, least=5),
    FederationConfig("shards", 7, partition="shards", shards=3),
    FederationConfig("one", 1, partition="dirichlet", alpha=0.1),
]


@pytest.mark.parametrize("federation", KINDS, ids=lambda federation: federation.name)
def test_every_image_is_one_clients(federation):
    parts = deal(federation, LABELS, 3)
    assert len(parts) == federation.clients
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(LABELS)))
    assert all((np.diff(part) > 0).all() for part in parts)


@pytest.mark.parametrize("federation", KINDS[:3], ids=lambda federation: federation.name)
def test_a_partition_follows_from_its_seed(federation):
    digests = [digest_of(deal(federation, LABELS, seed)) for seed in (3, 3, 4)]
    assert digests[0] == digests[1] != digests[2]


def test_parts_of_an_iid_partition_differ_by_one_image_at_most():
    assert {len(part) for part in deal(KINDS[0], LABELS, 3)} == {143, 144}


def test_shares_of_a_class_are_those_of_the_draw():
    """By hand: per class a shuffle and the cuts at the shares' running sum, rounded down."""
    federation = replace(KINDS[1], least=1)
    draws = np.random.default_rng(derive(3, "partition", 0))
    expected = [[] for _ in range(7)]
    for label in range(10):
        own = draws.permutation(np.flatnonzero(label == LABELS))
        ends = [0, *(int(end * len(own)) for end in np.cumsum(draws.dirichlet([0.5] * 7))[:-1]), len(own)]
        for client in range(7):
            expected[client] += own[ends[client] : ends[client + 1]].tolist()
    assert [part.tolist() for part in deal(federation, LABELS, 3)] == [sorted(part) for part in expected]


def test_a_client_has_the_labels_of_its_shards():
    """Sorted labels are cut in 21 shards of 47 or 48 images, which hold few labels each."""
    parts = deal(KINDS[2], LABELS, 3)
    whole = np.sort(LABELS)
    shards = np.array_split(whole, 21)
    most = max(len(set(shard.tolist())) for shard in shards)
    assert all(len(set(LABELS[part].tolist())) <= 3 * most for part in parts)
    assert all(141 <= len(part) <= 144 for part in parts)


def test_draws_are_repeated_until_every_client_has_its_least():
    sizes = [[len(part) for part in deal(replace(KINDS[1], least=least), LABELS, 3)] for least in (1, 100)]
    assert min(sizes[0]) < 100 <= min(sizes[1])


def test_a_least_that_no_draw_gives_names_the_client():
    with pytest.raises(ConfigError, match=r"federation.dirichlet.least must be .* got 143: client \d stays below it"):
        deal(replace(KINDS[1], least=143), LABELS, 3)
