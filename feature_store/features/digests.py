"""What a row of features is remembered by: a short digest of each value, one of the whole, and what went before."""

from __future__ import annotations

import hashlib
import zlib
from typing import TYPE_CHECKING

import numpy as np

from feature_store.errors import BadInputError
from feature_store.features.definition import FEATURES

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating]

# What the state of a series says of the candles behind a row.
FACTS = np.dtype(
    [
        ("open_time_ms", "<i8"),
        ("first_open_time_ms", "<i8"),
        ("candles", "<u4"),
        ("missing", "<u4"),
        ("since_gap", "<u4"),
    ]
)
# 114 bytes for each row: 16 bits tell which feature differs, 64 bits whether anything does.
DIGESTS = np.dtype([("row", "<u8"), ("inputs", "<u8"), ("features", "<u2", (len(FEATURES),))])

_NAN_BITS = np.float64("nan").view(np.int64)
# Fibonacci hashing: the upper bits of the product depend on every bit below them, and neighbours never share them.
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def digested(features: Floats, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.void]:
    """
    Return the digests of rows of features [n, 49] and of the model inputs made from them [n, inputs].

    They are of the bits, so any two numbers differ, 0 and -0 too; every NaN counts as the same.
    """
    values = np.ascontiguousarray(features, np.float64)
    bits = np.where(np.isnan(values), _NAN_BITS, values.view(np.int64)).view(np.uint64)
    read = np.ascontiguousarray(np.where(np.isnan(inputs), np.float32("nan"), inputs), np.float32)
    found = np.empty(len(values), DIGESTS)
    found["features"] = (bits * _MULTIPLIER) >> np.uint64(48)
    found["row"] = [_digest(row.tobytes()) for row in bits]
    found["inputs"] = [_digest(row.tobytes()) for row in read]
    return found


def _digest(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def pack_facts(facts: npt.NDArray[np.void]) -> bytes:
    """Return facts as bytes: field after field and compressed, since most rows say the same."""
    return zlib.compress(b"".join(np.ascontiguousarray(facts[name]).tobytes() for name in FACTS.names or ()), 1)


def unpack_facts(content: bytes, rows: int) -> npt.NDArray[np.void]:
    """
    Return the facts that `pack_facts` packed.

    Raises:
        BadInputError: The bytes are damaged, or hold another number of rows.
    """
    plain = _unpacked(content, rows * FACTS.itemsize, f"facts of {rows} rows")
    facts = np.empty(rows, FACTS)
    begin = 0
    for name in FACTS.names or ():
        kind = FACTS[name]
        facts[name] = np.frombuffer(plain, kind, rows, begin)
        begin += rows * kind.itemsize
    return facts


def pack_inputs(inputs: npt.NDArray[np.float32]) -> bytes:
    """
    Return inputs [n, k] as bytes, column after column and compressed: inputs of other symbols repeat in every row.

    They are kept as they are, since no digest that tells two of them apart for sure is shorter; every NaN is the same.
    """
    plain = np.where(np.isnan(inputs), np.float32("nan"), inputs).astype("<f4")
    return zlib.compress(np.ascontiguousarray(plain.T).tobytes(), 1)


def unpack_inputs(content: bytes, rows: int, columns: int) -> npt.NDArray[np.float32]:
    """
    Return the inputs that `pack_inputs` packed.

    Raises:
        BadInputError: The bytes are damaged, or hold another number of rows or columns.
    """
    plain = _unpacked(content, rows * columns * 4, f"inputs of {rows} rows")
    return np.ascontiguousarray(np.frombuffer(plain, "<f4").reshape(columns, rows).T, np.float32)


def unpack_digests(content: bytes, rows: int) -> npt.NDArray[np.void]:
    """
    Return the digests of as many rows as there should be.

    Raises:
        BadInputError: There are more or fewer.
    """
    if len(content) != rows * DIGESTS.itemsize:
        raise BadInputError(
            f"Expected digests of {rows} rows ({rows * DIGESTS.itemsize} bytes), found {len(content)} bytes"
        )
    return np.frombuffer(content, DIGESTS)


def _unpacked(content: bytes, expected: int, what: str) -> bytes:
    try:
        plain = zlib.decompressobj().decompress(content, expected + 1)
    except zlib.error as error:
        raise BadInputError(f"Expected packed {what}, found bytes that cannot be read: {error}") from error
    if len(plain) != expected:
        raise BadInputError(f"Expected packed {what}, found {len(plain)} bytes where {expected} belong")
    return plain
