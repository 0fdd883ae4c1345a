"""
Universal Binary JSON as XGBoost writes it, read without trusting a single length.

The subset of the format (ubjson.org, draft 12) that XGBoost uses: counted arrays, typed or not, and objects that end
with a bracket. What XGBoost never writes is refused, so that no two readers can differ on what is read here.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from inference.models.inspection.refusal import Fault, InspectionError, require

_MAX_DEPTH = 12
_MAX_KEY = 200
_INTEGERS = {b"i": ">b", b"U": ">B", b"I": ">h", b"l": ">i", b"L": ">q"}
_ARRAYS = {b"i": ">i1", b"U": ">u1", b"I": ">i2", b"l": ">i4", b"L": ">i8", b"d": ">f4", b"D": ">f8"}


def parse(content: bytes, what: str) -> Any:
    """
    Return the document as dicts, lists, strings, numbers, and numpy arrays where arrays are typed.

    Raises:
        InspectionError: A length leads beyond the end, a key comes twice, something follows the document, or it is
            no UBJSON of the subset.
    """
    reader = _Reader(content, what)
    document = reader.value(0)
    require(
        reader.at == len(content),
        Fault.TRAILING_BYTES,
        f"{what} goes on for {len(content) - reader.at} bytes after its end",
    )
    return document


class _Reader:
    def __init__(self, content: bytes, what: str) -> None:
        self._content = content
        self._what = what
        self.at = 0

    def take(self, n: int) -> bytes:
        left = len(self._content) - self.at
        require(0 <= n <= left, Fault.TRUNCATED, f"{self._what} asks for {n} bytes at {self.at}, {left} are left")
        self.at += n
        return self._content[self.at - n : self.at]

    def value(self, depth: int) -> Any:
        require(depth <= _MAX_DEPTH, Fault.TOO_DEEP, f"{self._what} nests deeper than {_MAX_DEPTH}")
        marker = self.take(1)
        if marker == b"{":
            return self._object(depth)
        if marker == b"[":
            return self._array(depth)
        if marker == b"S":
            return self._text(self._length())
        if marker in _INTEGERS:
            return self._number(_INTEGERS[marker])
        if marker in (b"d", b"D"):
            return self._number(">f" if marker == b"d" else ">d")
        if marker in (b"T", b"F"):
            return marker == b"T"
        raise self._unknown(marker)

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while (marker := self.take(1)) != b"}":
            require(marker == b"L", Fault.STRUCTURE, f"{self._what} has no key at {self.at - 1}")
            length = self._number(">q")
            require(0 <= length <= _MAX_KEY, Fault.STRUCTURE, f"{self._what} has a key of {length} bytes")
            key = self._text(length)
            require(key not in found, Fault.DUPLICATE_KEY, f"{self._what} names {key!r} twice")
            found[key] = self.value(depth + 1)
        return found

    def _array(self, depth: int) -> Any:
        marker = self.take(1)
        if marker == b"$":
            kind = self.take(1)
            require(self.take(1) == b"#", Fault.STRUCTURE, f"{self._what} has a typed array without a count")
            if kind not in _ARRAYS:
                raise self._unknown(kind)
            dtype, count = np.dtype(_ARRAYS[kind]), self._length()
            # Divided rather than multiplied, although Python's integers would not wrap either.
            left = (len(self._content) - self.at) // dtype.itemsize
            require(count <= left, Fault.TRUNCATED, f"{self._what} asks for {count} numbers, {left} are left")
            return np.frombuffer(self.take(count * dtype.itemsize), dtype)
        require(marker == b"#", Fault.STRUCTURE, f"{self._what} has an array without a count at {self.at - 1}")
        count = self._length()
        require(count <= len(self._content) - self.at, Fault.TRUNCATED, f"{self._what} asks for {count} values")
        return [self.value(depth + 1) for _ in range(count)]

    def _length(self) -> int:
        require(self.take(1) == b"L", Fault.STRUCTURE, f"{self._what} has no length at {self.at - 1}")
        length = self._number(">q")
        require(length >= 0, Fault.STRUCTURE, f"{self._what} has a length of {length}")
        return int(length)

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def _text(self, length: int) -> str:
        try:
            return self.take(length).decode("ascii")
        except UnicodeDecodeError as error:
            raise InspectionError(Fault.STRUCTURE, f"{self._what} holds text that is not ASCII") from error

    def _unknown(self, marker: bytes) -> InspectionError:
        return InspectionError(Fault.STRUCTURE, f"{self._what} has the marker {marker!r} at {self.at - 1}")
