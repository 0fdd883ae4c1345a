"""The weekly universes as files: which was in force at any past moment, and every revision of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from feature_store.candle import Timeframe
from feature_store.errors import CorruptFileError
from feature_store.files import replace_bytes
from feature_store.universe.policy import Rules
from feature_store.universe.selection import WEEK_MS, Universe, week_start_ms

BUILD_DELAY_MS = 1_800_000
"""A weekly universe is taken to have been available this long after its moment: the schedule has made it by then."""
_SCHEMA = 1
_REMEDY = "Move it away and build it again with: qtctl universe build"


class Market(msgspec.Struct, frozen=True, order=True):
    """Whose candles a universe is chosen from."""

    venue: str
    timeframe: Timeframe


class StoredUniverse(msgspec.Struct, frozen=True, kw_only=True):
    """
    One revision of a weekly universe, with when it could be known and the rules that made it.

    The first revision counts as available shortly after its week begins; what a later build finds different, because
    candles came late or were corrected, is a new revision from the moment of that build.
    """

    market: Market
    revision: int
    available_at_ms: int
    rules: str
    lists: str
    universe: Universe


class _Week(msgspec.Struct, frozen=True):
    schema: int
    revisions: tuple[StoredUniverse, ...]


class UniverseArchive:
    """
    Universes under `root/exchange=…/timeframe=…/rules=…/YYYY-MM-DD.json`, one file for each week with its revisions.

    Other rules make other universes, so each set of rules has its own. Writers hold a lock and replace a file as a
    whole; readers take no lock. Reading needs neither the lake nor DuckDB, so the worker can do it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def save(self, market: Market, rules: Rules, universe: Universe, now_ms: int) -> StoredUniverse:
        """
        Store a universe and return its newest revision: the one that was there if nothing differs.

        Raises:
            CorruptFileError: The file of that week is damaged; it was left as it is.
        """
        path = self._path(market, rules.fingerprint, universe.at_ms)
        with _locked(path):
            before = _read(path)
            if before and before[-1].universe == universe:
                return before[-1]
            available_ms = max(now_ms, before[-1].available_at_ms + 1) if before else universe.at_ms + BUILD_DELAY_MS
            new = StoredUniverse(
                market=market,
                revision=len(before),
                available_at_ms=available_ms,
                rules=rules.fingerprint,
                lists=rules.lists.version,
                universe=universe,
            )
            replace_bytes(path, msgspec.json.encode(_Week(_SCHEMA, (*before, new))))
        return new

    def as_of(self, market: Market, rules: str, time_ms: int) -> StoredUniverse | None:
        """
        Return the universe in force at a moment, as it could be known then; None before the first.

        `rules` is the fingerprint of the rules that made it.

        Raises:
            CorruptFileError: A file is damaged.
        """
        for path in reversed(self._weeks(market, rules)):
            if _day_ms(path) > time_ms:
                continue
            known = [one for one in _read(path) if one.available_at_ms <= time_ms]
            if known:
                return known[-1]
        return None

    def history(self, market: Market, rules: str) -> list[StoredUniverse]:
        """
        Return every revision of every week, oldest week first.

        Raises:
            CorruptFileError: A file is damaged.
        """
        return [one for path in self._weeks(market, rules) for one in _read(path)]

    def last_week_ms(self, market: Market, rules: str) -> int | None:
        """Return the moment of the newest stored week, or None."""
        weeks = self._weeks(market, rules)
        return _day_ms(weeks[-1]) if weeks else None

    def _folder(self, market: Market, rules: str) -> Path:
        return self.root / f"exchange={market.venue}" / f"timeframe={market.timeframe}" / f"rules={rules[:16]}"

    def _path(self, market: Market, rules: str, at_ms: int) -> Path:
        return self._folder(market, rules) / f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d}.json"

    def _weeks(self, market: Market, rules: str) -> list[Path]:
        return sorted(self._folder(market, rules).glob("????-??-??.json"))


def due_weeks(after_ms: int, now_ms: int) -> list[int]:
    """Return the moments of all weekly choices after a moment, up to now."""
    return list(range(week_start_ms(after_ms) + WEEK_MS, week_start_ms(now_ms) + 1, WEEK_MS))


def _day_ms(path: Path) -> int:
    try:
        day = datetime.strptime(path.stem, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise CorruptFileError(path, "its name is not a day", _REMEDY) from error
    return int(day.timestamp() * 1000)


def _read(path: Path) -> tuple[StoredUniverse, ...]:
    try:
        week = msgspec.json.decode(path.read_bytes(), type=_Week)
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.DecodeError) as error:
        raise CorruptFileError(path, f"not a whole universe ({error})", _REMEDY) from error
    if week.schema != _SCHEMA or any(one.universe.at_ms != _day_ms(path) for one in week.revisions):
        raise CorruptFileError(path, "it is of another version or another week", _REMEDY)
    return week.revisions


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path.parent / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
