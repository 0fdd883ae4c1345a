"""The anchor outside the home, of the journal that it belongs to."""

from __future__ import annotations

from pathlib import Path

from inference.journal.outside_anchor import OutsideAnchor
from inference.settings import Settings


def make_anchor(settings: Settings, journal: Path) -> OutsideAnchor:
    """Return the anchor that the settings name for the home's own journal; any other journal has none."""
    is_own = journal.resolve() == settings.journal.resolve()
    return OutsideAnchor(settings.journal_anchor if is_own else None)
