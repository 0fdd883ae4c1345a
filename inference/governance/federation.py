"""What several workers of one desk say of themselves, in files of one folder, and what that comes to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path

import msgspec

from feature_store.json_text import UNREADABLE
from inference.domain.governance import Stance
from inference.governance.briefing import Others

_LARGEST_VIEW = 1 << 20
# More than any desk has; sums stay exact below.
_MOST = Decimal(10) ** 15


class View(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    What one worker says of itself: its stance, its account and what it carries, in quote currency.

    `said_ms` is wall-clock time, UTC milliseconds: workers may trade at venues whose clocks differ.
    """

    worker: str
    said_ms: int
    stance: Stance
    equity: Decimal
    notional: Mapping[str, Decimal]


def write_view(folder: Path, view: View) -> None:
    """
    Say it to the others; they see the earlier view or this one, never half of one.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{view.worker}.{os.getpid()}"
    temporary.write_bytes(msgspec.json.encode(view))
    temporary.replace(folder / f"{view.worker}.json")


def read_views(folder: Path) -> tuple[list[View], list[str]]:
    """Return the views that can be read, and the names of files that hold none."""
    views: list[View] = []
    unread: list[str] = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        try:
            with path.open("rb") as file:
                view = msgspec.json.decode(file.read(_LARGEST_VIEW), type=View)
        except (OSError, *UNREADABLE):
            unread.append(path.name)
            continue
        if view.worker == path.stem and _is_sound(view):
            views.append(view)
        else:
            unread.append(path.name)
    return views, unread


def heard(
    views: Iterable[View], *, own: str, members: Iterable[str], now_ms: int, fresh_ms: int, ahead_ms: int = 5_000
) -> Others:
    """
    Return what the other members say, of views at most `fresh_ms` old; later than now by `ahead_ms` is not believed.

    Nobody is counted twice, oneself not at all, and whoever is no member is not heard.
    """
    expected = sorted({*members} - {own})
    newest: dict[str, View] = {}
    for view in views:
        is_fresh = -ahead_ms <= now_ms - view.said_ms <= fresh_ms
        if view.worker in expected and is_fresh:
            earlier = newest.get(view.worker)
            if earlier is None or earlier.said_ms < view.said_ms:
                newest[view.worker] = view
    notional: dict[str, Decimal] = {}
    for view in newest.values():
        for symbol, carried in view.notional.items():
            notional[symbol] = notional.get(symbol, Decimal(0)) + carried
    return Others(
        expected=len(expected),
        heard=len(newest),
        careful=sum(view.stance is Stance.CAREFUL for view in newest.values()),
        exits_only=sum(view.stance is Stance.EXITS_ONLY for view in newest.values()),
        notional=dict(sorted(notional.items())),
        equity=sum((view.equity for view in newest.values()), Decimal(0)),
    )


def _is_sound(view: View) -> bool:
    amounts = (view.equity, *view.notional.values())
    return all(one.is_finite() and abs(one) <= _MOST for one in amounts) and all(
        one >= 0 for one in view.notional.values()
    )
