"""Funding, other sources and listings join a training set by when they could be known, and change no past one."""

from __future__ import annotations

import numpy as np
import pytest

from feature_store.candle import Series, Timeframe
from feature_store.context.observation import MARKET, MARKETS_POLLED, Figure, Observation
from feature_store.context.store import ObservationStore
from feature_store.errors import BadInputError
from feature_store.joins import ContextObservations, kind_observations, listings_of
from feature_store.kinds.definition import FILTERS, FUNDING, MARK, TRADES, Subject
from feature_store.kinds.records import Records
from feature_store.kinds.store import KindStore
from feature_store.lake import CandleLake
from feature_store.observations import Observations
from feature_store.store import FeatureStore
from feature_store.universe.archive import Market, UniverseArchive
from feature_store.universe.building import build_weeks, membership_table
from feature_store.universe.facts import facts_at
from feature_store.universe.selection import DAY_MS, Refusal, weekly_candidates
from tests.feature_support import BTC, ETH, STEP, market
from tests.kind_support import rows_of
from tests.universe_support import EVERYTHING, LISTS, MONDAY_MS, candles, hourly

HORIZON = 12
FIRST_MS = int(market(1).open_time_ms[0])
HOUR_MS = 3_600_000


@pytest.fixture
def stores(tmp_path):
    """Return a lake with two series, and a store with funding each hour, one settlement of which was corrected."""
    lake, kinds = CandleLake(tmp_path / "lake"), KindStore(tmp_path / "lake")
    for seed, series in enumerate((BTC, ETH)):
        lake.append(series, market(200, seed=seed))
    hours = (FIRST_MS // HOUR_MS + 1 + np.arange(12)) * HOUR_MS
    for series in (BTC, ETH):
        rates = Records.of(FUNDING, hours, funding_rate=np.arange(12) / 1e4)
        kinds.append(Subject.of(FUNDING, series), rates, arrived_ms=int(hours[-1]) + 1)
    return lake, kinds, hours


def _set(lake, observations, as_of_ms=None):
    store = FeatureStore(lake.root / "features")
    made = store.training_set(
        lake, [BTC, ETH], 0, FIRST_MS + 300 * STEP, HORIZON, as_of_ms=as_of_ms, observations=observations
    )
    return made[BTC]


def test_funding_is_what_was_published_at_each_decision(stores):
    """At each candle funding is the last settlement that had been published, with its delay; none before the first."""
    lake, kinds, hours = stores
    one = _set(lake, [kind_observations(kinds, FUNDING, [BTC, ETH])])
    published = hours + FUNDING.delay_ms
    at = np.searchsorted(published, one.decided_at_ms, side="right") - 1

    expected = [None if place < 0 else place / 1e4 for place in at.tolist()]
    assert one.known["funding.funding_rate"].to_pylist() == expected
    assert expected[0] is None
    assert expected[-1] == 11 / 1e4


def test_a_correction_counts_from_its_arrival(stores):
    """A corrected settlement is told from its arrival on, and not at all as of a moment before."""
    lake, kinds, hours = stores
    arrived_ms = int(hours[3]) + 20 * 60_000
    corrected = Records.of(FUNDING, hours[3:4], funding_rate=[0.5])
    kinds.append(Subject.of(FUNDING, BTC), corrected, arrived_ms=int(hours[-1]) + 5, available_at_ms=arrived_ms)
    one = _set(lake, [kind_observations(kinds, FUNDING, [BTC])])
    rate = np.array(one.known["funding.funding_rate"].to_pylist(), float)
    hour = (one.decided_at_ms >= hours[3] + FUNDING.delay_ms) & (one.decided_at_ms < hours[4] + FUNDING.delay_ms)

    assert set(rate[hour & (one.decided_at_ms < arrived_ms)]) == {3 / 1e4}
    assert set(rate[hour & (one.decided_at_ms >= arrived_ms)]) == {0.5}
    before = _set(lake, [kind_observations(kinds, FUNDING, [BTC])], as_of_ms=arrived_ms - 1)
    assert 0.5 not in before.known["funding.funding_rate"].to_pylist()


def test_kinds_with_a_timeframe_and_without_rows(stores):
    """A kind without rows of the timeframe says nothing; one with many rows at a time is refused."""
    lake, kinds, _ = stores
    quarter = Series(BTC.venue, BTC.symbol, Timeframe.M15)
    kinds.append(Subject.of(MARK, quarter), rows_of(MARK, 5), arrived_ms=10**13 - 1)

    assert set(_set(lake, [kind_observations(kinds, MARK, [BTC])]).known["mark.close"].to_pylist()) == {None}
    assert len(kind_observations(kinds, MARK, [quarter], name="quarter").table) == 5
    with pytest.raises(BadInputError, match="sum them up"):
        kind_observations(kinds, TRADES, [BTC])


def test_other_sources_join_by_arrival(stores, tmp_path):
    """What a source says is told from its arrival on; as of a moment before, nothing of it is known."""
    lake, _, _ = stores
    told = ObservationStore(tmp_path / "lake")
    arrived_ms = FIRST_MS + 100 * STEP
    figures = (Figure("BTC", "market_cap_usd", 5e11), Figure("BTC", "volume_usd", 5e10))
    whole = (Figure(MARKET, "total_market_cap_usd", 1e12),)
    told.append(
        "test", [Observation("a", None, figures), Observation("b", None, whole)], arrived_ms, topic=MARKETS_POLLED
    )
    one = _set(lake, [ContextObservations(told.read())])
    share = np.array(one.known["context.market_share"].to_pylist())

    known = one.decided_at_ms >= arrived_ms
    assert np.isnan(share[~known]).all()
    assert share[known] == pytest.approx(np.log(0.5))
    before = _set(lake, [ContextObservations(told.read())], as_of_ms=arrived_ms - 1)
    assert np.isnan(np.array(before.known["context.market_share"].to_pylist())).all()


def test_the_universe_joins_like_anything_else(tmp_path):
    """Each candle of a training set knows whether its symbol was in the universe in force then."""
    lake = CandleLake(tmp_path / "lake")
    lake.append(hourly("BTC"), candles(MONDAY_MS - DAY_MS, MONDAY_MS + DAY_MS))
    archive, hours = UniverseArchive(tmp_path / "universe"), Market("sandbox", Timeframe.H1)
    built = build_weeks(lake, archive, hours, EVERYTHING, MONDAY_MS + DAY_MS)
    one = FeatureStore(tmp_path / "features").training_set(
        lake,
        [hourly("BTC")],
        0,
        MONDAY_MS + DAY_MS,
        HORIZON,
        observations=[Observations("universe", membership_table(built))],
    )[hourly("BTC")]

    included = one.known["universe.included"].to_pylist()
    assert included == [None] * 24 + [True] * 24


def test_listings_come_from_what_the_venue_said(tmp_path):
    """Where a venue stops trading an instrument, the universe knows from the moment at which we saw it so."""
    kinds, lake = KindStore(tmp_path / "lake"), CandleLake(tmp_path / "lake")
    lake.append(hourly("BTC"), candles(MONDAY_MS - 3 * DAY_MS, MONDAY_MS + DAY_MS))
    columns = {column.name: [1.0] for column in FILTERS.columns}
    for moment_ms, status in ((MONDAY_MS - DAY_MS, "TRADING"), (MONDAY_MS + HOUR_MS, "SETTLING")):
        said = Records.of(
            FILTERS, [moment_ms], **(columns | {"status": [status], "listed_ms": [MONDAY_MS - 90 * DAY_MS]})
        )
        kinds.append(Subject.of(FILTERS, hourly("BTC")), said, arrived_ms=moment_ms)
    listings = listings_of(kinds, "sandbox")
    moments = (MONDAY_MS, MONDAY_MS + 2 * HOUR_MS)
    found = {
        moment_ms: weekly_candidates(facts, EVERYTHING.policy, LISTS, moment_ms).verdicts[0]
        for moment_ms, facts in facts_at(lake, lake.series(), moments, listings)
    }

    assert found[moments[0]].is_included
    assert found[moments[0]].facts.listed_ms == MONDAY_MS - 90 * DAY_MS
    assert found[moments[1]].refusal is Refusal.DELISTED
    assert listings_of(kinds, "binance") == []
