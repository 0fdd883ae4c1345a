"""Bundles changed by somebody who knows the format: bytes replaced, digests mended."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Forgery:
    """One crafted change: what it is called, the class of bytes it is made to, and how to make it in a copy."""

    name: str
    kind: str
    make: Callable[[Path], None]


def read_manifest(bundle: Path) -> dict[str, Any]:
    """Return the manifest as plain JSON."""
    found: dict[str, Any] = json.loads((bundle / MANIFEST).read_bytes())
    return found


def edit_manifest(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest in place."""
    manifest = read_manifest(bundle)
    change(manifest)
    (bundle / MANIFEST).write_text(json.dumps(manifest))


def replace_file(bundle: Path, name: str, content: bytes) -> None:
    """Replace a file and mend its size and digest wherever the manifest names it."""
    (bundle / name).write_bytes(content)
    entry = {"name": name, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}

    def mend(value: Any) -> Any:
        if isinstance(value, dict):
            if value.get("name") == name and "sha256" in value:
                return entry
            return {key: mend(one) for key, one in value.items()}
        return [mend(one) for one in value] if isinstance(value, list) else value

    (bundle / MANIFEST).write_text(json.dumps(mend(read_manifest(bundle))))


def ubjson(value: Any) -> bytes:
    """Write UBJSON as XGBoost writes it; arrays of numpy become typed ones."""
    if isinstance(value, dict):
        return b"{" + b"".join(_counted(key.encode()) + ubjson(one) for key, one in value.items()) + b"}"
    if isinstance(value, np.ndarray):
        form = {"f4": b"d", "f8": b"D", "i1": b"i", "u1": b"U", "i2": b"I", "i4": b"l", "i8": b"L"}[value.dtype.str[1:]]
        big = value.astype(value.dtype.newbyteorder(">")).tobytes()
        return b"[$" + form + b"#L" + struct.pack(">q", len(value)) + big
    if isinstance(value, list):
        return b"[#L" + struct.pack(">q", len(value)) + b"".join(map(ubjson, value))
    if isinstance(value, str):
        return b"S" + _counted(value.encode())
    return b"L" + struct.pack(">q", value)


def _counted(text: bytes) -> bytes:
    return b"L" + struct.pack(">q", len(text)) + text
