"""In which modes orders go to a venue of others, for the worker that sends them and for flows that judge for it."""

from __future__ import annotations

AS_LIVE = frozenset({"testnet", "live"})
"""Values of QT_MODE that trade by the keys of an account at a venue: one's rules are the other's, but for the money."""
