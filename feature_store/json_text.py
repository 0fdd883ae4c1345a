"""What may come of JSON that somebody else wrote, or that was damaged."""

from __future__ import annotations

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises at bytes of another form, that are no UTF-8, or whose brackets nest without end."""
