"""What commands print for machines."""

from __future__ import annotations

import sys

import msgspec


def print_json(document: object) -> None:
    """Print one indented JSON document."""
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    sys.stdout.flush()
