"""Tables in Parquet files that may be anyone's: what a footer asks for is bounded before memory is taken."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.storage.files import CorruptFile, read_bytes
from harness.validation import plain_text, reason

if TYPE_CHECKING:
    import pandas as pd

MOST_HISTORY_BYTES = 1 << 28
"""of a file"""
MOST_COLUMNS = 10_000
MOST_VALUES = 50_000_000
"""rows times columns"""
MOST_BYTES = 1 << 29
"""of all values, uncompressed"""


def read_parquet(source: Path | bytes) -> pd.DataFrame:
    """A table of numbers, texts and times from a file or its content; CorruptFile, one line, where it is none or is
    larger than what may be read. OSError where the file cannot be opened."""
    import pandas as pd
    import pyarrow as pa

    data = source if isinstance(source, bytes) else read_bytes(source, MOST_HISTORY_BYTES)
    try:
        check_parquet(data)
        return pd.read_parquet(pa.BufferReader(data))
    except Exception as error:  # of whatever kind: a footer may say anything
        where = "" if isinstance(source, bytes) else f"{source}: "
        raise CorruptFile(f"{where}{reason(error)}") from None


def check_parquet(data: bytes) -> Any:
    """The opened file (`pyarrow.parquet.ParquetFile`) of a table within the bounds; CorruptFile where it is larger, has
    columns of other types than numbers, texts, bytes and times, or a column's name has characters that cannot be seen.

    What else is damaged is found when it is read.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(pa.BufferReader(data))
        names, schema, footer = file.schema_arrow.names, file.schema_arrow, file.metadata
        rows, columns = footer.num_rows, len(names)
        size = sum(footer.row_group(group).total_byte_size for group in range(footer.num_row_groups))
    except Exception as error:
        raise CorruptFile(reason(error)) from None
    if columns > MOST_COLUMNS or rows * max(columns, 1) > MOST_VALUES or size > MOST_BYTES:
        raise CorruptFile(
            f"{rows} rows of {columns} columns, {size} bytes: more than the {MOST_COLUMNS} columns, {MOST_VALUES} "
            f"values or {MOST_BYTES} bytes that a table may have"
        )
    for name in names:
        try:
            plain_text(name)
        except ValueError as error:
            raise CorruptFile(f"a column's name must be {error}, got {name!r}") from None
    if len({*names}) < columns:
        raise CorruptFile("two columns have the same name")
    long = [name for name in names if _may_be_long(schema.field(name).type)]
    if any(pa.types.is_nested(field.type) or pa.types.is_dictionary(field.type) for field in schema):
        raise CorruptFile("a column is neither of numbers nor of texts")
    if long and _text_bytes(data, long) > MOST_BYTES:
        raise CorruptFile(f"its texts have more than {MOST_BYTES} bytes")
    return file


def _may_be_long(kind: Any) -> bool:
    import pyarrow as pa

    return any(is_one(kind) for is_one in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary))


def _text_bytes(data: bytes, names: list[str]) -> int:
    """The bytes of all texts, each of which a file may hold once for many rows."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import parquet

    found = 0
    for chunk in parquet.ParquetFile(pa.BufferReader(data), read_dictionary=names).iter_batches(columns=names):
        for column in chunk.columns:
            lengths = pc.binary_length(column.dictionary if pa.types.is_dictionary(column.type) else column)
            if pa.types.is_dictionary(column.type):
                lengths = lengths.take(column.indices)
            found += pc.sum(lengths).as_py() or 0
    return found
