"""Machine code in a file: written once, checked whole before a byte of it may run, called through ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import stat
from pathlib import Path

import msgspec

from feature_store.errors import QuantumError
from feature_store.features.linking import PAGE, Block
from feature_store.files import replace_bytes

IMPORTABLE = ("log", "memcpy", "memmove", "memset", "sqrt")
"""What code may call: functions of the C library that numba's own code calls, too."""

LEVELS = {"1": "x86-64", "3": "x86-64-v3", "4": "x86-64-v4"}
"""Levels of the x86-64 processor that code is kept for, by LLVM's names; the first is any."""

_NEEDED = {
    "3": {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"},
    "4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
}
_CPU_INFO = Path("/proc/cpuinfo")

_MAGIC = b"QTKERNEL2\n"
_DIGEST = 32
_LENGTH = 4
_MAX_BYTES = 4 * 2**20
_ROOT = 0


class MachineCodeError(QuantumError):
    """A file of machine code cannot be used; nothing of it was run."""


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    made_from: str
    entries: dict[str, int]
    imports: dict[str, int]


def processor_levels(cpu_info: Path = _CPU_INFO) -> list[str]:
    """Return the levels of code that this processor runs, the fastest first."""
    try:
        text = cpu_info.read_text()
    except OSError:
        text = ""
    flags = next((line.partition(":")[2].split() for line in text.splitlines() if line.startswith("flags")), [])
    levels = ["1"]
    for level, needed in _NEEDED.items():
        if not needed <= set(flags):
            break
        levels.insert(0, level)
    return levels


def write(path: Path, block: Block, *, made_from: str) -> None:
    """
    Write a block and the digest of what it was made from; readers see all of it or nothing.

    Raises:
        OSError: The folder cannot be written to.
    """
    header = msgspec.json.encode(_Header(made_from, block.entries, block.imports))
    payload = len(header).to_bytes(_LENGTH, "little") + header + block.code
    replace_bytes(path, _MAGIC + hashlib.sha256(payload).digest() + payload)


def read(path: Path, *, made_from: str) -> Block:
    """
    Return the block of a file that is whole, was made from the same source, and by somebody who may change that.

    The digest in the file finds damage, not malice: whoever can write the file can write a digest.

    Raises:
        MachineCodeError: It is absent, damaged, somebody else's or made from something else; the message says which.
    """
    try:
        with path.open("rb") as file:
            _check_owner(path, os.fstat(file.fileno()))
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise MachineCodeError(f"{path}: {error.strerror}") from error
    start = len(_MAGIC) + _DIGEST
    payload = content[start:]
    if not content.startswith(_MAGIC) or len(content) > _MAX_BYTES or len(payload) < _LENGTH:
        raise MachineCodeError(f"{path} is no file of machine code")
    if hashlib.sha256(payload).digest() != content[len(_MAGIC) : start]:
        raise MachineCodeError(f"{path} is damaged: its digest differs from its content")
    length = int.from_bytes(payload[:_LENGTH], "little")
    try:
        header = msgspec.json.decode(payload[_LENGTH : _LENGTH + length], type=_Header)
    except msgspec.DecodeError as error:
        raise MachineCodeError(f"{path} has no usable header: {error}") from error
    block = Block(payload[_LENGTH + length :], header.entries, header.imports)
    if header.made_from != made_from:
        raise MachineCodeError(f"{path} was made from {header.made_from[:12]}, this program needs {made_from[:12]}")
    inside = all(0 <= at < len(block.code) for at in block.entries.values())
    inside &= all(0 <= at <= len(block.code) - 8 for at in block.imports.values())
    if not inside or not set(block.imports) <= set(IMPORTABLE):
        raise MachineCodeError(f"{path} names places or functions that it cannot have")
    return block


def _check_owner(path: Path, status: os.stat_result) -> None:
    """Refuse code that others than the program's own owners could have written."""
    trusted = {_ROOT, os.geteuid(), Path(__file__).stat().st_uid}
    if status.st_uid not in trusted or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise MachineCodeError(
            f"{path} belongs to user {status.st_uid} with mode {stat.S_IMODE(status.st_mode):o}: expected a file of"
            " this program's owner that nobody else may write; delete it, it is made anew"
        )


class LoadedCode:
    """A block in memory that may be run and no longer written; it stays for the life of the process."""

    def __init__(self, block: Block) -> None:
        """
        Put a block into memory.

        Raises:
            MachineCodeError: The system forbids code that was not mapped from a program's file.
        """
        size = len(block.code) + -len(block.code) % PAGE
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory.write(block.code)
        # CDLL(None) is this process, whose mathematics are the C library's.
        library = ctypes.CDLL(None, use_errno=True)
        for name, slot in block.imports.items():
            address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
            self._memory[slot : slot + 8] = address.to_bytes(8, "little")
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        library.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        if library.mprotect(base, size, mmap.PROT_READ | mmap.PROT_EXEC) != 0:
            raise MachineCodeError(f"Memory cannot be made executable: {os.strerror(ctypes.get_errno())}")
        self.addresses = {name: base + offset for name, offset in block.entries.items()}
