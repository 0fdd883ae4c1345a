"""
Arrays in an uncompressed zip archive as numpy writes it, read by hand: no inflating, no pickle, no evaluated headers.

The forms: PKWARE's APPNOTE 6.3 for the archive, numpy.lib.format for the arrays.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.models.inspection.refusal import Fault, require

Array = npt.NDArray[Any]

_LOCAL, _CENTRAL, _END = struct.Struct("<4s5H3L2H"), struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s4H2LH")
_WIDE = 0xFFFF_FFFF
_HEADER = re.compile(
    rb"\{'descr': '(<f4|<f8)', 'fortran_order': False, 'shape': \(((?:[0-9]{1,9}, ?)*[0-9]{0,9})\), \} *\n"
)
_MAX_HEADER = 512
_MAX_RANK = 3


def read_arrays(content: bytes, names: Collection[str], what: str) -> Mapping[str, Array]:
    """
    Return the named arrays of an uncompressed `.npz`, each finite, little-endian float32 or float64, row by row.

    The archive must hold these and no others, entry after entry without gaps, each as long as it says, under its own
    checksum; what is read is a view of `content`.

    Raises:
        InspectionError: Anything differs.
    """
    entries = _entries(content, what)
    found = {name.removesuffix(".npy"): body for name, body in entries.items()}
    require(
        set(found) == set(names) and all(name.endswith(".npy") for name in entries),
        Fault.BAD_ARCHIVE,
        lambda: f"{what} should hold {sorted(names)}, holds {sorted(entries)[:20]}",
    )
    return {name: _array(body, f"{what}: {name}") for name, body in found.items()}


def _entries(content: bytes, what: str) -> dict[str, memoryview]:
    require(len(content) >= _END.size, Fault.TRUNCATED, f"{what} is too short for an archive")
    mark, disk, start_disk, here, total, size, start, comment = _END.unpack_from(content, len(content) - _END.size)
    require(
        mark == b"PK\x05\x06" and disk == start_disk == comment == 0 and here == total,
        Fault.BAD_ARCHIVE,
        f"{what} does not end as an archive of one piece without a comment",
    )
    require(
        start + size == len(content) - _END.size, Fault.BAD_ARCHIVE, f"{what} has a directory that is not where it says"
    )
    entries: dict[str, memoryview] = {}
    at, place = 0, start
    for _ in range(total):
        require(place + _CENTRAL.size <= start + size, Fault.TRUNCATED, f"{what} has fewer entries than it says")
        listed = _CENTRAL.unpack_from(content, place)
        name_length, extra_length, comment_length = listed[10:13]
        name = content[place + _CENTRAL.size : place + _CENTRAL.size + name_length]
        require(
            listed[0] == b"PK\x01\x02" and listed[3:5] == (0, 0) and extra_length == comment_length == 0,
            Fault.BAD_ARCHIVE,
            f"{what} lists {name!r:.80} as something other than a plain, stored file",
        )
        require(listed[8] == listed[9], Fault.BAD_ARCHIVE, f"{what} lists {name!r} with two sizes")
        require(listed[16] == at, Fault.BAD_ARCHIVE, f"{what} has a gap or an overlap before {name!r}")
        body, at = _local(content, at, start, name, (listed[7], listed[9]), what)
        text = name.decode("ascii", "replace")
        require(text not in entries, Fault.BAD_ARCHIVE, f"{what} holds {text!r} twice")
        entries[text] = body
        place += _CENTRAL.size + name_length
    require(place == start + size and at == start, Fault.BAD_ARCHIVE, f"{what} holds bytes that no entry owns")
    return entries


def _local(
    content: bytes, at: int, end: int, name: bytes, listed: tuple[int, int], what: str
) -> tuple[memoryview, int]:
    """Return an entry's bytes and where the next one begins; `listed` is its checksum and size in the directory."""
    require(at + _LOCAL.size <= end, Fault.TRUNCATED, f"{what} ends before {name!r}")
    mark, _, flags, method, _, _, checksum, packed, size, name_length, extra_length = _LOCAL.unpack_from(content, at)
    begin = at + _LOCAL.size + name_length
    require(
        mark == b"PK\x03\x04" and (flags, method) == (0, 0) and content[at + _LOCAL.size : begin] == name,
        Fault.BAD_ARCHIVE,
        f"{what} has an entry that is not the stored file {name!r} of its directory",
    )
    if packed == size == _WIDE:
        # numpy reserves room for sizes beyond 4 GiB whether or not it needs it.
        require(extra_length == 20 and begin + 20 <= end, Fault.BAD_ARCHIVE, f"{what}: {name!r} has no sizes")
        field, length, size, packed = struct.unpack_from("<2H2Q", content, begin)
        require((field, length) == (1, 16), Fault.BAD_ARCHIVE, f"{what}: {name!r} has an unknown extra field")
    else:
        require(extra_length == 0, Fault.BAD_ARCHIVE, f"{what}: {name!r} has an extra field")
    begin += extra_length
    require(
        packed == size == listed[1] and begin + size <= end,
        Fault.BAD_ARCHIVE,
        f"{what}: {name!r} is not as long as the directory says",
    )
    body = memoryview(content)[begin : begin + size]
    require(
        zlib.crc32(body) == checksum == listed[0],
        Fault.BAD_ARCHIVE,
        f"{what}: {name!r} has another checksum than it says",
    )
    return body, begin + size


def _array(body: memoryview, what: str) -> Array:
    require(
        len(body) > 10 and bytes(body[:8]) == b"\x93NUMPY\x01\x00", Fault.BAD_ARRAY, f"{what} is no array of version 1"
    )
    length = int.from_bytes(body[8:10], "little")
    require(length <= _MAX_HEADER and 10 + length <= len(body), Fault.BAD_ARRAY, f"{what} has an oversized header")
    header = _HEADER.fullmatch(bytes(body[10 : 10 + length]))
    # Objects would be unpickled; no other type than these two is ever written.
    if header is None:
        require(holds=False, fault=Fault.BAD_ARRAY, message=f"{what} is not of plain little-endian floats")
        raise AssertionError
    dtype = np.dtype(header[1].decode())
    shape = tuple(int(one) for one in header[2].replace(b" ", b"").split(b",") if one)
    count = 1
    for one in shape:
        count *= one
    require(
        1 <= len(shape) <= _MAX_RANK and 10 + length + count * dtype.itemsize == len(body),
        Fault.BAD_ARRAY,
        f"{what} has the shape {shape}, which its {len(body)} bytes do not fill",
    )
    values = np.frombuffer(body[10 + length :], dtype).reshape(shape)
    require(bool(np.isfinite(values).all()), Fault.NOT_FINITE, f"{what} holds numbers that are none")
    return values
