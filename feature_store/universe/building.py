"""Making the weekly universes of a market from the lake, and what training asks of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_store.candle import Series
from feature_store.errors import BadInputError
from feature_store.lake import BACKFILL_DELAY_MS, CandleLake
from feature_store.universe.archive import Market, StoredUniverse, UniverseArchive, due_weeks
from feature_store.universe.facts import Listing, facts_at
from feature_store.universe.policy import Rules
from feature_store.universe.selection import Universe, weekly_candidates

Told = Callable[[StoredUniverse, int, int], None]


def build_weeks(
    lake: CandleLake,
    archive: UniverseArchive,
    market: Market,
    rules: Rules,
    now_ms: int,
    *,
    listings: Iterable[Listing] = (),
    again: bool = False,
    progress: Told | None = None,
) -> list[StoredUniverse]:
    """
    Make the universe of every week that the lake reaches and that is not stored yet; return them, oldest first.

    Every symbol that ever had a candle is judged in every week since: what left later is in the weeks before.

    Args:
        lake: Where the candles are.
        archive: Where universes are kept.
        market: Whose universe.
        rules: Policy and lists.
        now_ms: The venue's time; the lake has to hold what could be known until then.
        listings: What the venue said of when symbols trade.
        again: Judge weeks that are stored already once more, too; what differs becomes a new revision.
        progress: Told of each week with its number and how many there are.

    Raises:
        CorruptFileError: A partition of the lake or a stored universe is damaged.
    """
    series = _series(lake, market)
    first_ms = min((ms for ms in map(lake.first_open_time_ms, series) if ms is not None), default=now_ms)
    stored_ms = None if again else archive.last_week_ms(market, rules.fingerprint)
    weeks = due_weeks(first_ms if stored_ms is None else stored_ms, now_ms)
    done = []
    for universe in chosen_at(lake, series, weeks, rules, listings):
        done.append(archive.save(market, rules, universe, now_ms))
        if progress is not None:
            progress(done[-1], len(done), len(weeks))
    return done


def chosen_at(
    lake: CandleLake, series: Iterable[Series], weeks: Sequence[int], rules: Rules, listings: Iterable[Listing] = ()
) -> Iterator[Universe]:
    """
    Yield the universe that is chosen at each of some moments, in order, from what was known then.

    Raises:
        CorruptFileError: A partition of the lake is damaged.
    """
    for at_ms, facts in facts_at(lake, series, weeks, listings):
        yield weekly_candidates(facts, rules.policy, rules.lists, at_ms)


def seen_ms(lake: CandleLake, market: Market) -> int:
    """
    Return the venue's time as far as stored candles tell: when the newest of them could be known.

    Raises:
        BadInputError: No candle of the market is stored.
    """
    newest = [ms for ms in map(lake.last_open_time_ms, _series(lake, market)) if ms is not None]
    if not newest:
        raise BadInputError(
            f"No {market.timeframe} candles of {market.venue} are stored in {lake.place}; run 'qtctl ingest' first"
        )
    return max(newest) + market.timeframe.milliseconds + BACKFILL_DELAY_MS


def membership_table(stored: Iterable[StoredUniverse]) -> pa.Table:
    """
    Return universes as observations: symbol, event_time_ms, available_at_ms, included and rank (0 for none).

    A symbol that an earlier universe judged and a later one no longer names is not included from then on.
    """
    rows: list[tuple[str, int, int, bool, int]] = []
    named: dict[str, None] = {}
    for one in sorted(stored, key=lambda one: (one.available_at_ms, one.universe.at_ms, one.revision)):
        named.update(dict.fromkeys(verdict.symbol for verdict in one.universe.verdicts))
        verdicts = {verdict.symbol: verdict for verdict in one.universe.verdicts}
        for symbol in named:
            rank = verdicts[symbol].rank if symbol in verdicts else None
            rows.append((symbol, one.universe.at_ms, one.available_at_ms, rank is not None, rank or 0))
    symbols, at_ms, available, included, ranks = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    return pa.table(
        {
            "symbol": pa.array(symbols, pa.string()),
            "event_time_ms": pa.array(at_ms, pa.int64()),
            "available_at_ms": pa.array(available, pa.int64()),
            "included": pa.array(included, pa.bool_()),
            "rank": pa.array(ranks, pa.int32()),
        }
    )


def members_between(stored: Sequence[StoredUniverse], start_ms: int, end_ms: int) -> list[str]:
    """Return, in order of name, every symbol that was included at any moment of `[start_ms, end_ms)`."""
    ordered = sorted(stored, key=lambda one: (one.available_at_ms, one.universe.at_ms, one.revision))
    before = [one for one in ordered if one.available_at_ms <= start_ms][-1:]
    within = [one for one in ordered if start_ms < one.available_at_ms < end_ms]
    return sorted({symbol for one in (*before, *within) for symbol in one.universe.symbols})


def was_included(
    stored: Sequence[StoredUniverse], symbol: str, times_ms: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Tell for each moment whether a symbol was in the universe that was in force and known then."""
    ordered = sorted(stored, key=lambda one: (one.available_at_ms, one.universe.at_ms, one.revision))
    newest_ms = -1
    changes: list[tuple[int, bool]] = []
    for one in ordered:
        # A correction of an older week arrives too late to be in force.
        if one.universe.at_ms >= newest_ms:
            newest_ms = one.universe.at_ms
            changes.append((one.available_at_ms, symbol in one.universe.symbols))
    from_ms = np.array([change[0] for change in changes], np.int64)
    included = np.array([False, *[change[1] for change in changes]])
    result: npt.NDArray[np.bool_] = included[np.searchsorted(from_ms, times_ms, side="right")]
    return result


def _series(lake: CandleLake, market: Market) -> list[Series]:
    return [one for one in lake.series() if (one.venue, one.timeframe) == (market.venue, market.timeframe)]
