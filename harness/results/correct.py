"""Which images of the test split every cell got right at its last epoch, as packed bits in the split's fixed order.

A record keeps them as `test_correct`: `images`, their number I, and `bits`, base64 of `numpy.packbits` of a bool (I,)
array. Records made before have none, and neither have cells whose test split was not evaluated.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.storage.store import Record
from harness.validation import ConfigError, shown

CORRECT_COLUMNS = {"cell_key": "str", "images": "int64", "bits": "object"}


@dataclass(frozen=True)
class Correct:
    """The test images that one cell got right: packed bits of `images` images."""

    images: int
    bits: bytes


def correct_of(record: Record) -> Correct | None:
    """What a record says of the test images, None where it says nothing.

    ConfigError of one line where it is not what its number of images and its accuracy allow.
    """
    found = record.get("test_correct")
    if found is None:
        return None
    try:
        images, bits = int(found["images"]), base64.b64decode(found["bits"], validate=True)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ConfigError(_refusal(record, f"images and packed bits, got {error!r}")) from error
    if images < 1 or len(bits) != -(-images // 8):
        raise ConfigError(
            _refusal(record, f"a bit for each of at least 1 image, got {len(bits)} bytes for {shown(images)}")
        )
    right = int(np.unpackbits(np.frombuffer(bits, np.uint8), count=images).sum())
    accuracy = record["summary"].get("test_accuracy")
    if accuracy is not None and not abs(100 * right / images - accuracy) < 1e-3:
        raise ConfigError(_refusal(record, f"as many right as its test accuracy {accuracy}, got {right} of {images}"))
    return Correct(images, bits)


def _refusal(record: Mapping[str, Any], bound: str) -> str:
    return f"test_correct of cell {record['cell_key']} must be {bound}; redo={record['method']}"


def correct_table(correct: Mapping[str, Correct]) -> pd.DataFrame:
    """One line per cell that has them: cell_key, images (their number I) and bits (packed, ceil(I / 8) bytes)."""
    lines = [(key, found.images, found.bits) for key, found in correct.items()]
    return pd.DataFrame(lines, columns=list(CORRECT_COLUMNS)).astype(CORRECT_COLUMNS)
