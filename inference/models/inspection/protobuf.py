"""
The wire format of Protocol Buffers, read into fields by number, without trusting a length.

Source: protobuf.dev/programming-guides/encoding. Groups, and fields that a schema does not name, are refused; a field
that may stand once and stands twice is refused too, since readers merge or replace it as they like.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from inference.models.inspection.refusal import Fault, InspectionError, require

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Schema:
    """Which fields a message may have: the number of each, whether it may repeat."""

    name: str
    single: frozenset[int]
    repeated: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Message:
    """The fields of one message by number, in the order in which they came."""

    what: str
    fields: Mapping[int, tuple[int | memoryview, ...]]

    def has(self, number: int) -> bool:
        """Whether the field is there."""
        return number in self.fields

    def messages(self, number: int) -> tuple[memoryview, ...]:
        """Return the embedded messages, texts or bytes of a field."""
        found = self.fields.get(number, ())
        if any(isinstance(one, int) for one in found):
            raise InspectionError(Fault.STRUCTURE, f"{self.what} has a number in field {number}")
        return tuple(one for one in found if not isinstance(one, int))

    def text(self, number: int, limit: int = 1000) -> str:
        """Return a text, empty where there is none."""
        found = self.texts(number, limit)
        return found[0] if found else ""

    def texts(self, number: int, limit: int = 1000) -> tuple[str, ...]:
        """Return all texts of a field."""
        parts = self.messages(number)
        require(all(len(one) <= limit for one in parts), Fault.OVERSIZE, f"{self.what} has a text beyond {limit} bytes")
        try:
            return tuple(bytes(one).decode("utf-8") for one in parts)
        except UnicodeDecodeError as error:
            raise InspectionError(Fault.STRUCTURE, f"{self.what} has a text that is none") from error

    def number(self, number: int, default: int = 0) -> int:
        """Return a whole number as protobuf's int64."""
        found = self.numbers(number)
        return found[0] if found else default

    def numbers(self, number: int) -> tuple[int, ...]:
        """Return whole numbers, packed or one by one."""
        out: list[int] = []
        for one in self.fields.get(number, ()):
            if isinstance(one, int):
                out.append(_signed(one))
                continue
            at = 0
            while at < len(one):
                value, at = _varint(one, at, self.what)
                out.append(_signed(value))
        return tuple(out)


def read(content: memoryview, schema: Schema, what: str) -> Message:
    """
    Return the fields of a message.

    Raises:
        InspectionError: It is damaged, or has a field that the schema does not allow there.
    """
    fields: dict[int, list[int | memoryview]] = {}
    at = 0
    while at < len(content):
        tag, at = _varint(content, at, what)
        number, kind = tag >> 3, tag & 7
        value: int | memoryview
        if kind == VARINT:
            value, at = _varint(content, at, what)
        else:
            if kind == BYTES:
                length, at = _varint(content, at, what)
            else:
                length = {FIXED64: 8, FIXED32: 4}.get(kind, -1)
            require(length >= 0, Fault.STRUCTURE, f"{what} has a field of the unknown kind {kind}")
            left = len(content) - at
            require(length <= left, Fault.TRUNCATED, f"{what} asks for {length} bytes, {left} are left")
            value, at = content[at : at + length], at + length
        require(
            number in schema.single or number in schema.repeated,
            Fault.STRUCTURE,
            f"{what} has the field {number}, which {schema.name} has not",
        )
        found = fields.setdefault(number, [])
        require(
            not found or number in schema.repeated,
            Fault.DUPLICATE_KEY,
            f"{what} has field {number} of {schema.name} twice",
        )
        found.append(value)
    return Message(what, {number: tuple(found) for number, found in fields.items()})


def _varint(content: memoryview, at: int, what: str) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        require(at < len(content), Fault.TRUNCATED, f"{what} ends within a number")
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            require(value < 2**64, Fault.STRUCTURE, f"{what} has a number beyond 64 bits")
            return value, at
    raise InspectionError(Fault.STRUCTURE, f"{what} has a number beyond 64 bits")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
