"""Linking of one compiler's object files into one block of machine code that runs wherever it is put."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from feature_store.errors import QuantumError

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE = 4096
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_ELF64_LITTLE = b"\x7fELF\x02\x01\x01"
_RELOCATABLE, _X86_64 = 1, 62
_RELA, _SYMBOL_TABLE, _NOBITS = 4, 2, 8
_ALLOCATED, _WRITABLE = 2, 1
_PC32, _PLT32 = 2, 4
_JUMP_THROUGH = b"\xff\x25"  # jmp [rip + distance]


class LinkError(QuantumError):
    """The compiler made something that this linker was not written for; the message says what."""


class Block(NamedTuple):
    """Machine code, where its functions begin, and where it expects the addresses of what it calls."""

    code: bytes
    entries: dict[str, int]
    imports: dict[str, int]


class _Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


class _Object:
    """One relocatable file: the sections that are needed to run, and where they were put."""

    def __init__(self, content: bytes) -> None:
        fields = _HEADER.unpack_from(content.ljust(_HEADER.size, b"\x00"))
        if not content.startswith(_ELF64_LITTLE) or fields[1:3] != (_RELOCATABLE, _X86_64) or not fields[12]:
            raise LinkError("Expected a relocatable x86-64 object file, found something else; use numba's own code")
        self.content = content
        start, size, count = fields[6], fields[11], fields[12]
        self.sections = [_Section(*_SECTION.unpack_from(content, start + size * at)) for at in range(count)]
        self.places: dict[int, int] = {}
        self._names = self.sections[fields[13]]
        table = next(section for section in self.sections if section.kind == _SYMBOL_TABLE)
        strings = self.sections[table.link]
        self.symbols: list[tuple[str, int, int]] = [
            (self._text(strings, name), section, value)
            for name, _, _, section, value, _ in _SYMBOL.iter_unpack(self._bytes(table))
        ]

    def put(self, code: bytearray) -> None:
        """Append what has to be in memory; tables for unwinding have not, since nothing raises."""
        for at, section in enumerate(self.sections):
            name = self._text(self._names, section.name)
            if not section.flags & _ALLOCATED or name.startswith(".eh_frame"):
                continue
            if section.flags & _WRITABLE or section.kind == _NOBITS:
                raise LinkError(f"Section {name} wants memory to write to; only constants and code are kept")
            code.extend(b"\x00" * (-len(code) % max(section.alignment, 1)))
            self.places[at] = len(code)
            code.extend(self._bytes(section))

    def relocations(self) -> list[tuple[int, int, str, int | None, int]]:
        """Return place, kind, symbol, its address where it is ours, and addend of everything left open."""
        found = []
        for section in self.sections:
            if section.kind != _RELA or section.info not in self.places:
                continue
            for offset, info, addend in _RELOCATION.iter_unpack(self._bytes(section)):
                name, home, value = self.symbols[info >> 32]
                address = self.places[home] + value if home in self.places else None
                found.append((self.places[section.info] + offset, info & 0xFFFFFFFF, name, address, addend))
        return found

    def address(self, symbol: str) -> int:
        """Return where a function of this object begins."""
        for name, home, value in self.symbols:
            if name == symbol and home in self.places:
                return self.places[home] + value
        raise LinkError(f"The object has no function {symbol}")

    def _bytes(self, section: _Section) -> bytes:
        return self.content[section.offset : section.offset + section.size]

    def _text(self, strings: _Section, offset: int) -> str:
        begin = strings.offset + offset
        return self.content[begin : self.content.index(b"\x00", begin)].decode()


def link(objects: Sequence[tuple[str, str, bytes]], importable: Sequence[str]) -> Block:
    """
    Return one block made of object files, each with one function to be called: (name, symbol, content).

    Args:
        objects: What to link; x86-64, position-independent, without data that is written.
        importable: Functions of the C library that the code may call.

    Raises:
        LinkError: The objects need something else.
    """
    code = bytearray()
    parsed = [(name, symbol, _Object(content)) for name, symbol, content in objects]
    for _, _, one in parsed:
        one.put(code)
    open_ends = [end for _, _, one in parsed for end in one.relocations()]
    wanted = sorted({name for _, _, name, address, _ in open_ends if address is None})
    if not set(wanted) <= set(importable):
        raise LinkError(f"The code calls {sorted(set(wanted) - set(importable))}; only {sorted(importable)} are known")

    code.extend(b"\xcc" * (-len(code) % 16))
    stubs = {name: len(code) + 8 * at for at, name in enumerate(wanted)}
    slots = {name: len(code) + 8 * (len(wanted) + at) for at, name in enumerate(wanted)}
    for name in wanted:
        distance = slots[name] - (stubs[name] + 6)
        code.extend(_JUMP_THROUGH + struct.pack("<i", distance) + b"\xcc\xcc")
    code.extend(b"\x00" * (8 * len(wanted)))

    for place, kind, name, address, addend in open_ends:
        if kind not in {_PC32, _PLT32} or (address is None and kind != _PLT32):
            raise LinkError(f"The code refers to {name} in a way (relocation {kind}) that is not known here")
        target = stubs[name] if address is None else address
        struct.pack_into("<i", code, place, target + addend - place)
    return Block(bytes(code), {name: one.address(symbol) for name, symbol, one in parsed}, slots)
