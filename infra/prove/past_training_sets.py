"""Training sets and universes of past dates, against a store that was cut off then: nothing later may show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

from feature_store.candle import Series, Timeframe
from feature_store.features.engine import FeatureEngine
from feature_store.lake import CandleLake
from feature_store.observations import Observations
from feature_store.store import FeatureStore
from feature_store.universe.archive import Market, StoredUniverse
from feature_store.universe.building import membership_table
from feature_store.universe.facts import Listing, facts_at
from feature_store.universe.policy import read_rules
from feature_store.universe.selection import (
    DAY_MS,
    Mode,
    Refusal,
    UniversePolicy,
    week_start_ms,
    weekly_candidates,
)
from infra.prove.arrivals import Arrivals
from infra.prove.markets import market

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    import numpy.typing as npt

    from feature_store.candle import CandleBlock

    Column = npt.NDArray[Any]
    Delivered = tuple[int, Series, CandleBlock]

HORIZON = 12
_CANDLES = 700
_SYMBOLS = 4
_ROWS_LOOKED_AT = 25
_FUNDING_MS = 8 * 3_600_000
_POLICY = UniversePolicy(mode=Mode.ALL, min_volume_24h=10_000, min_liquidity=300, min_age_days=2, max_symbols=3)


class Comparing(Protocol):
    """What counts values and remembers those that the future changed."""

    def compare(self, name: str, before: Column, after: Column) -> None:
        """Compare what was known with what is said of it later."""
        ...


def past_dates_know_no_future(
    folder: Path,
    moments: int,
    rng: np.random.Generator,
    tally: Comparing,
    make_lake: Callable[[Path], CandleLake] = CandleLake,
) -> int:
    """
    Compare training sets and universes as of past moments with those of a lake that holds no later delivery.

    Candles come late, twice, and wrong at first; funding and listings have corrections; return how many moments.
    """
    truth = {
        Series("synthetic", f"P{one}/USDT:USDT", Timeframe.H1): market(_CANDLES, seed=one, timeframe=Timeframe.H1)
        for one in range(_SYMBOLS)
    }
    deliveries = sorted(_deliveries(truth, rng), key=lambda one: (one[0], one[1]))
    whole, then, store = make_lake(folder / "whole"), make_lake(folder / "then"), FeatureStore(folder / "features")
    for arrived_ms, series, block in deliveries:
        whole.append(series, block, available_at_ms=arrived_ms)
    first_ms, last_ms = deliveries[0][0], deliveries[-1][0]
    funding, listings = _funding(truth, rng), _listings(truth, rng)
    universes = membership_table(_universes(whole, list(truth), first_ms, last_ms))
    everything = [_known("funding", funding, last_ms), _known("universe", universes, last_ms)]
    pending = list(deliveries)
    for moment_ms in sorted(rng.integers(first_ms, last_ms, moments).tolist()):
        while pending and pending[0][0] <= moment_ms:
            arrived_ms, series, block = pending.pop(0)
            then.append(series, block, available_at_ms=arrived_ms)
        span = (0, last_ms, HORIZON)
        past = store.training_set(whole, truth, *span, as_of_ms=moment_ms, observations=everything)
        cut = [_known("funding", funding, moment_ms), _known("universe", universes, moment_ms)]
        arrived = [one for one in truth if then.paths(one)]
        lived = store.training_set(then, arrived, *span, observations=cut)
        for series in truth:
            if series not in lived:
                tally.compare("what had not arrived", np.empty(0, np.int64), past[series].decided_at_ms)
                continue
            one, other = past[series], lived[series]
            tally.compare("features of a past training set", other.frame.features, one.frame.features)
            tally.compare("label of a past training set", other.frame.forward_log_return, one.frame.forward_log_return)
            tally.compare("moment of decision", other.decided_at_ms, one.decided_at_ms)
            for name in other.known.column_names:
                tally.compare(f"{name} of a past training set", _numbers(other.known[name]), _numbers(one.known[name]))
        known_then = [one for one in listings if one.available_at_ms <= moment_ms]
        tally.compare(
            "universe of a past moment",
            _verdicts(then, then.series(), moment_ms, known_then),
            _verdicts(whole, whole.series(), moment_ms, listings),
        )
    _rows_are_as_decided(whole, store, list(truth), last_ms, rng, tally)
    return moments


def _rows_are_as_decided(
    lake: CandleLake, store: FeatureStore, series: list[Series], end_ms: int, rng: np.random.Generator, tally: Comparing
) -> None:
    """Compare rows of today's training sets with what the candles that were known at their decision give."""
    for one, made in store.training_set(lake, series, 0, end_ms, HORIZON).items():
        for row in rng.integers(0, len(made), _ROWS_LOOKED_AT).tolist():
            open_ms, decided_ms = int(made.frame.open_time_ms[row]), int(made.decided_at_ms[row])
            known = lake.read(one, None, open_ms + 1, as_of_ms=decided_ms)
            expected = FeatureEngine(one.timeframe).advance(known)[-1]
            tally.compare("features at their decision", expected, made.frame.features[row])


def _deliveries(truth: dict[Series, CandleBlock], rng: np.random.Generator) -> Iterator[Delivered]:
    for series, block in truth.items():
        arrivals, now_ms = Arrivals(block, rng, 5), 0
        while not arrivals.is_over:
            told = arrivals.next().block
            newest = told.last_open_time_ms
            now_ms = max(now_ms + 1_000, 0 if newest is None else newest + series.timeframe.milliseconds)
            yield now_ms, series, told


def _funding(truth: dict[Series, CandleBlock], rng: np.random.Generator) -> pa.Table:
    rows = []
    for series, block in truth.items():
        for time_ms in range(int(block.open_time_ms[0]), int(block.open_time_ms[-1]), _FUNDING_MS):
            arrived_ms = time_ms + int(rng.integers(0, 4 * 3_600_000))
            rows.append((series.symbol, time_ms, arrived_ms, rng.normal()))
            if rng.random() < 0.2:
                rows.append((series.symbol, time_ms, arrived_ms + int(rng.integers(1, 3 * DAY_MS)), rng.normal()))
    symbols, times, arrived, rates = zip(*rows, strict=True)
    return pa.table({"symbol": symbols, "event_time_ms": times, "available_at_ms": arrived, "rate": rates})


def _listings(truth: dict[Series, CandleBlock], rng: np.random.Generator) -> list[Listing]:
    ends = next(iter(truth.values())).open_time_ms
    return [
        Listing(series.symbol, int(rng.integers(ends[0], ends[-1])), delisted_ms=int(rng.integers(ends[0], ends[-1])))
        for series in truth
        if rng.random() < 0.5
    ]


def _universes(lake: CandleLake, series: list[Series], first_ms: int, last_ms: int) -> list[StoredUniverse]:
    rules, days = read_rules(), range(week_start_ms(first_ms), last_ms, DAY_MS)
    return [
        StoredUniverse(
            market=Market("synthetic", Timeframe.H1),
            revision=0,
            available_at_ms=moment_ms + 1,
            rules=rules.fingerprint,
            lists=rules.lists.version,
            universe=weekly_candidates(facts, _POLICY, rules.lists, moment_ms),
        )
        for moment_ms, facts in facts_at(lake, series, list(days))
    ]


def _known(name: str, table: pa.Table, moment_ms: int) -> Observations:
    return Observations(name, table.filter(pa.array(table["available_at_ms"].to_numpy() <= moment_ms)))


def _numbers(column: Any) -> Column:
    return np.array([np.nan if value is None else float(value) for value in column.to_pylist()])


def _verdicts(lake: CandleLake, series: list[Series], moment_ms: int, listings: list[Listing]) -> Column:
    """Return each symbol's rank, refusal, volume and liquidity as numbers, in order of the universe."""
    ((_, facts),) = facts_at(lake, series, [moment_ms], listings)
    chosen = weekly_candidates(facts, _POLICY, read_rules().lists, moment_ms)
    codes = list(Refusal)
    return np.array(
        [
            (
                float(one.symbol[1]),
                float(one.rank or 0),
                float(codes.index(one.refusal) if one.refusal else -1),
                one.facts.volume_24h,
                one.facts.liquidity,
            )
            for one in chosen.verdicts
        ]
    ).reshape(-1, 5)
