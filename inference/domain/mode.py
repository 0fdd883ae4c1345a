"""In which modes this version trades, for the worker that starts in one and for flows that judge for one."""

from __future__ import annotations

OFFERED_MODES = frozenset({"sandbox", "paper", "live"})
"""Values of QT_MODE in which a worker starts; flows judge for no other."""


def not_offered(mode: str) -> str:
    """Say that nothing trades in a mode, and which to choose."""
    return f"QT_MODE={mode} is not offered by this version; use QT_MODE=sandbox"
