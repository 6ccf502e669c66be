"""Which tensors of a checkpoint are weights, which are buffers, which never move, and which are the same one twice.

Who knows decides: what recorded the snapshots, a pickled module, or a model that is named. Otherwise names do, those of
buffers being few and the same in all libraries; a tensor that no snapshot changes is fixed, whatever it is called.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch

from harness.validation import ConfigError, nearest, shown

WEIGHT, BUFFER, FIXED, TIED = "weight", "buffer", "fixed", "tied"
BUFFERS = frozenset(
    {
        *("running_mean", "running_var", "num_batches_tracked", "n_averaged", "inv_freq", "original_inv_freq"),
        *("position_ids", "token_type_ids", "relative_position_index", "relative_coords_table", "attn_mask"),
        *("masked_bias", "attention_bias_idxs"),
    }
)
CODEBOOK = frozenset({"cluster_size", "embed", "embed_avg", "inited"})
"""of a quantiser whose codes are averages, where an `embed_avg` stands beside them"""
PREFIX = re.compile(r"(^|\.)(?:module|_orig_mod)\.")
"""of wrappers for several devices and for compilation"""


@dataclass(frozen=True)
class Tensors:
    """What is known of one tensor over all snapshots."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    digests: tuple[str, ...]
    """of its bytes in every snapshot, with its type"""
    identities: tuple[object, ...]
    """where its bytes lie in every snapshot"""


@dataclass(frozen=True)
class Role:
    """`of`: the tensor that a tied one is the same as."""

    kind: str
    of: str | None = None


def plain_names(names: Sequence[str]) -> dict[str, str]:
    """Names without the prefixes of wrappers, by the names as they are; as they are where two would be one."""
    plain = {}
    for name in names:
        short = name
        while (found := PREFIX.sub(r"\1", short)) != short:
            short = found
        plain[name] = short
    return plain if len(set(plain.values())) == len(plain) else {name: name for name in names}


def natural(name: str) -> list[tuple[int, str | int]]:
    """A key that sorts `layer.2` before `layer.10`."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]


def roles(
    tensors: Mapping[str, Tensors], said: Sequence[str] | None, weights: Sequence[str], buffers: Sequence[str]
) -> dict[str, Role]:
    """The role of every tensor; `said`: the weights by who knows them, None where nobody does; `weights` and `buffers`
    are patterns that decide before all else.

    ConfigError where a pattern matches nothing, or a tensor is matched as both.
    """
    forced = _forced(tensors, weights, buffers)
    codebooks = {name.rpartition(".")[0] for name in tensors if name.rpartition(".")[2] == "embed_avg"}
    found: dict[str, Role] = {}
    moving: dict[tuple[object, ...], str] = {}
    known = None if said is None else set(said)
    first = [name for name in said or () if name in tensors]
    for name in dict.fromkeys([*first, *tensors]):  # of tied ones the first in the file stands, as in the model
        own = tensors[name]
        kind = forced.get(name)
        if kind == WEIGHT and not own.dtype.is_floating_point:
            raise ConfigError(f"weights must match tensors of floating-point numbers, got {name} of {own.dtype}")
        if kind is None and known is not None:
            kind = WEIGHT if name in known else BUFFER
        if kind is None:
            kind = BUFFER if is_buffer(name, own.dtype, codebooks) else WEIGHT
        never = len(set(own.digests)) == 1
        if kind == WEIGHT and known is None and never and forced.get(name) is None:
            kind = FIXED
        same = (own.shape, own.digests)
        twin = moving.get(same) if not never else None
        if kind == WEIGHT and (twin is None or known is not None):
            moving.setdefault(same, name)
            found[name] = Role(WEIGHT)
        elif kind == WEIGHT:
            found[name] = Role(TIED, twin)
        else:
            found[name] = Role(kind)
    return _with_shared(tensors, found)


def _with_shared(tensors: Mapping[str, Tensors], found: dict[str, Role]) -> dict[str, Role]:
    """Names that share a weight's storage, or are bit-equal to it everywhere while it moves, are tied to it, also where
    somebody said which tensors are the weights: `named_parameters` names a tied one once."""
    weights = {(own.shape, own.digests): name for name, own in tensors.items() if found[name].kind == WEIGHT}
    places = {own.identities: name for name, own in tensors.items() if found[name].kind == WEIGHT}
    for name, own in tensors.items():
        if found[name].kind != BUFFER or not own.dtype.is_floating_point:
            continue
        twin = places.get(own.identities)
        if twin is None and len(set(own.digests)) > 1:
            twin = weights.get((own.shape, own.digests))
        if twin is not None:
            found[name] = Role(TIED, twin)
    return found


def is_buffer(name: str, dtype: torch.dtype, codebooks: set[str]) -> bool:
    """Whether a tensor is a buffer by its type or its name; `codebooks`: modules with an average of their codes."""
    above, _, last = name.rpartition(".")
    return not dtype.is_floating_point or last in BUFFERS or (last in CODEBOOK and above in codebooks)


def ordered(tensors: Mapping[str, Tensors], said: Sequence[str] | None) -> list[str]:
    """The names in the model's order where somebody said it, otherwise in that of their texts and numbers, which is the
    same in all kinds of files."""
    first = [name for name in said or () if name in tensors]
    return [*first, *sorted(set(tensors) - set(first), key=natural)]


def _forced(tensors: Mapping[str, Tensors], weights: Sequence[str], buffers: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, patterns in ((WEIGHT, weights), (BUFFER, buffers)):
        for pattern in patterns:
            matched = [name for name in tensors if fnmatchcase(name, pattern)]
            if not matched:
                raise ConfigError(
                    f"{key}s must match names of tensors, got {shown(pattern)}{nearest(pattern, tensors)}"
                )
            for name in matched:
                if found.setdefault(name, key) != key:
                    raise ConfigError(f"weights and buffers must match different tensors, got both for {name}")
    return found
