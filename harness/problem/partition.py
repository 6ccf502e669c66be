"""How a base's training images are dealt to the clients of a federation.

Parts follow from the labels, the federation and a seed alone. Shape suffixes: n images, K clients.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.config import BaseConfig, DatasetConfig, FederationConfig
from harness.problem.datasets import train_images
from harness.problem.sources import find_source
from harness.storage.cache import remembered
from harness.storage.keys import source_digest
from harness.validation import ConfigError, Faults

if TYPE_CHECKING:
    from torch import Tensor

DRAWS = 100
"""of shares, at most, until every client has its least images"""
Part = NDArray[np.int64]
"""ascending indices into the training split"""


@dataclass(frozen=True)
class PartitionFacts:
    """What a plan asks of a partition."""

    smallest: int
    """images of the client that has fewest"""
    digest: str


def partition_seed(base: BaseConfig) -> int:
    """What a base's partition is drawn by."""
    own = base.federation.partition_seed
    return base.seed if own is None else own


def deal(federation: FederationConfig, labels_n: NDArray[np.int64], seed: int) -> list[Part]:
    """The images of every client, as ascending indices; every image is one client's.

    A single client has all. `iid`: a permutation cut in equal parts. `dirichlet`: every class is shuffled and cut by
    shares that are drawn of a Dirichlet distribution over clients (Hsu et al. 2019), all classes anew until every
    client has `least` images (Li et al., ICDE 2022); ConfigError where none of `DRAWS` draws gives that. `shards`: the
    images sorted by label are cut in `shards` parts per client, which are dealt at random (McMahan et al., AISTATS
    2017).
    """
    from harness.randomness import derive  # imports torch, which a plan does without

    n, K = len(labels_n), federation.clients
    if K == 1:
        return [np.arange(n)]
    if federation.partition == "dirichlet":
        return _dirichlet(federation, labels_n, seed)
    draws = np.random.default_rng(derive(seed, "partition"))
    if federation.partition == "iid":
        return [np.sort(part) for part in np.array_split(draws.permutation(n), K)]
    shards = np.array_split(np.argsort(labels_n, kind="stable"), K * federation.shards)
    dealt = draws.permutation(len(shards)).reshape(K, federation.shards)
    return [np.sort(np.concatenate([shards[shard] for shard in own])) for own in dealt]


def _dirichlet(federation: FederationConfig, labels_n: NDArray[np.int64], seed: int) -> list[Part]:
    from harness.randomness import derive

    nearest: list[int] = []
    for attempt in range(DRAWS):
        parts = list(_by_shares(federation, labels_n, np.random.default_rng(derive(seed, "partition", attempt))))
        sizes = [len(part) for part in parts]
        if min(sizes) >= federation.least:
            return parts
        nearest = sizes if not nearest or min(sizes) > min(nearest) else nearest
    client = int(np.argmin(nearest))
    raise ConfigError(
        f"{federation.key('least')} must be reached by every client in one of {DRAWS} draws with alpha = "
        f"{federation.alpha:g}, got {federation.least}: client {client} stays below it, with {nearest[client]} "
        "images in the best draw"
    )


def _by_shares(federation: FederationConfig, labels_n: NDArray[np.int64], draws: np.random.Generator) -> Iterator[Part]:
    """The parts of one draw of shares."""
    own: list[list[Part]] = [[] for _ in range(federation.clients)]
    for label in np.unique(labels_n):
        of_class = draws.permutation(np.flatnonzero(labels_n == label))
        shares_K = draws.dirichlet(np.full(federation.clients, float(federation.alpha)))
        cuts = np.floor(np.cumsum(shares_K)[:-1] * len(of_class)).astype(np.int64)
        for parts, part in zip(own, np.split(of_class, cuts), strict=True):
            parts.append(part)
    return (np.sort(np.concatenate(parts)) for parts in own)


def digest_of(parts: list[Part]) -> str:
    """Of which images every client has."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}|".encode())
        digest.update(part.astype("<i8").tobytes())
    return digest.hexdigest()[:20]


def parts_of(base: BaseConfig, labels_n: Tensor) -> list[Part]:
    """The parts of a base whose training split has these labels."""
    return deal(base.federation, labels_n.cpu().numpy(), partition_seed(base))


def check_clients(federation: FederationConfig, data: DatasetConfig) -> None:
    """ConfigError where a data set cannot be dealt to so many clients, whatever its labels."""
    if federation.clients == 0:
        return
    images, faults = train_images(data), Faults()
    bound, got, key = f"{images}, the training images of {data.name}", federation.clients, federation.key("clients")
    if find_source(data).streams:
        faults.lines.append(f"{key} must be 0 for {data.name}, whose images are streamed, got {got}")
    elif got > images:
        faults.lines.append(f"{key} must be at most {bound}, got {got}")
    elif federation.partition == "shards" and got * federation.shards > images:
        most = f"{images // got}, so that {got} clients have a shard each of the {images} training images"
        key = federation.key("shards")
        faults.lines.append(f"{key} must be at most {most} of {data.name}, got {federation.shards}")
    elif federation.partition == "dirichlet" and got > 1 and got * federation.least > images:
        most = f"{images // got}, what {got} clients can have of the {images} training images"
        faults.lines.append(f"{federation.key('least')} must be at most {most} of {data.name}, got {federation.least}")
    faults.check()


def partition_facts(base: BaseConfig, data_digest: str) -> PartitionFacts:
    """What is known of a base's partition, whose data are here with that digest; ConfigError where there is none."""

    def find() -> PartitionFacts:
        from harness.problem.splits import load_split

        parts = parts_of(base, load_split(base.dataset, "train").labels_B)
        return PartitionFacts(min(map(len, parts)), digest_of(parts))

    sources = [source_digest(f"harness.problem.{name}") for name in ("partition", "splits")]
    about: list[Any] = [asdict(base.dataset), asdict(base.federation), partition_seed(base), data_digest, *sources]
    key = hashlib.sha256(json.dumps([*about, np.__version__], default=str).encode()).hexdigest()
    return remembered("partitions", key, find, plain=asdict, read=lambda stored: PartitionFacts(**stored))
