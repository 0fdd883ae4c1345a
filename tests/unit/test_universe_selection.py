"""Each filter of the universe refuses what it should, with its numbers, and the first one wins."""

from __future__ import annotations

import pytest

from feature_store.errors import BadInputError
from feature_store.universe.selection import (
    DAY_MS,
    AssetClass,
    Mode,
    Refusal,
    UniversePolicy,
    base_asset,
    considered,
    quote_of,
    refused_now,
    week_start_ms,
    weekly_candidates,
)
from tests.universe_support import LISTS, MONDAY_MS, facts, perpetual

POLICY = UniversePolicy()
HOUR_MS = 3_600_000


def _verdict(one, policy=POLICY, at_ms=MONDAY_MS):
    universe = weekly_candidates([facts("BTC", last_close_ms=MONDAY_MS, volume_24h=9e9), one], policy, LISTS, at_ms)
    return universe.verdict(one.symbol)


@pytest.mark.parametrize(
    ("one", "refusal", "numbers"),
    [
        pytest.param(facts("ETH", symbol="ETH/BTC"), Refusal.OTHER_QUOTE, {"quote": "BTC"}, id="quote"),
        pytest.param(facts("ETH", symbol="nonsense"), Refusal.OTHER_QUOTE, {"quote": ""}, id="no-quote"),
        pytest.param(facts("PEPE"), Refusal.NOT_IN_MODE, {"asset": "PEPE"}, id="not-on-a-list"),
        pytest.param(facts("ETH", listed_ms=MONDAY_MS + 1), Refusal.NOT_YET_LISTED, {}, id="announced"),
        pytest.param(facts("ETH", delisted_ms=MONDAY_MS), Refusal.DELISTED, {"delisted_ms": MONDAY_MS}, id="delisted"),
        pytest.param(
            facts("ETH", last_close_ms=MONDAY_MS - 2 * HOUR_MS),
            Refusal.STALE,
            {"minutes_without_candle": 120.0, "maximum": 60.0},
            id="stale",
        ),
        pytest.param(
            facts("ETH", first_open_ms=MONDAY_MS - 3 * DAY_MS), Refusal.TOO_YOUNG, {"age_days": 3.0}, id="young"
        ),
        pytest.param(
            facts("ETH", volume_24h=999_999.0),
            Refusal.VOLUME_BELOW_MINIMUM,
            {"volume_24h": 999_999.0, "minimum": 1_000_000.0},
            id="volume",
        ),
        pytest.param(
            facts("ETH", liquidity=49_999.0), Refusal.LIQUIDITY_BELOW_MINIMUM, {"liquidity": 49_999.0}, id="liquidity"
        ),
        pytest.param(facts("ETH"), None, {}, id="included"),
    ],
)
def test_filters(one, refusal, numbers):
    """A symbol is included, or has the first filter that refused it with what was compared."""
    verdict = _verdict(one)

    assert verdict.refusal == refusal
    assert numbers.items() <= verdict.numbers.items()
    assert verdict.is_included == (refusal is None)


def test_the_first_filter_wins():
    """A symbol that several filters would refuse is told of the first one."""
    hopeless = facts("ETH", first_open_ms=MONDAY_MS - 2 * DAY_MS, last_close_ms=MONDAY_MS - DAY_MS, volume_24h=0.0)

    assert _verdict(hopeless).refusal is Refusal.STALE
    assert _verdict(hopeless, UniversePolicy(blacklist=("ETH",))).refusal is Refusal.BLACKLISTED


def test_blacklist_and_whitelist():
    """The whitelist adds to the mode and excuses from nothing else; the blacklist wins over it."""
    listed = UniversePolicy(whitelist=("PEPE", "WIF/USDT:USDT"))

    assert _verdict(facts("PEPE"), listed).is_included
    assert _verdict(facts("WIF"), listed).is_included
    assert _verdict(facts("PEPE", volume_24h=1.0), listed).refusal is Refusal.VOLUME_BELOW_MINIMUM
    both = UniversePolicy(whitelist=("PEPE",), blacklist=(perpetual("PEPE"),))
    assert _verdict(facts("PEPE"), both).refusal is Refusal.BLACKLISTED


def test_modes():
    """`all` considers every symbol, `list` those named, `l1l2-top` those on a list as it stood then."""
    assert _verdict(facts("PEPE"), UniversePolicy(mode=Mode.ALL)).is_included
    assert _verdict(facts("PEPE"), UniversePolicy(mode=Mode.LIST, symbols=("PEPE",))).is_included
    assert _verdict(facts("ETH"), UniversePolicy(mode=Mode.LIST, symbols=("PEPE",))).refusal is Refusal.NOT_IN_MODE
    assert _verdict(facts("BTC", symbol="BTC/USDT")).classes == (AssetClass.LAYER_1, AssetClass.MEGACAP)
    assert _verdict(facts("LINK")).is_included
    before = weekly_candidates([facts("LINK")], POLICY, LISTS, MONDAY_MS - 1)
    assert before.verdicts[0].refusal is Refusal.NOT_IN_MODE
    assert considered(perpetual("LINK"), POLICY, LISTS)
    assert not considered(perpetual("PEPE"), POLICY, LISTS)


def test_size_cap_keeps_what_trades_most():
    """Beyond the cap a symbol is told its place; equal volumes go by name."""
    policy = UniversePolicy(mode=Mode.ALL, max_symbols=2)
    universe = weekly_candidates(
        [facts("CCC"), facts("AAA"), facts("BBB"), facts("TOP", volume_24h=6e6)], policy, LISTS, MONDAY_MS
    )

    assert universe.symbols == (perpetual("TOP"), perpetual("AAA"))
    assert [one.rank for one in universe.verdicts] == [1, 2, None, None]
    last = universe.verdict(perpetual("CCC"))
    assert (last.refusal, last.numbers) == (Refusal.BEYOND_SIZE_CAP, {"place": 4, "maximum": 2})


def test_an_outage_of_the_venue_empties_nothing():
    """Where no symbol has a fresh candle, silence is measured against the newest of all."""
    hours_ago = MONDAY_MS - 5 * HOUR_MS
    universe = weekly_candidates(
        [facts(name, last_close_ms=hours_ago) for name in ("BTC", "ETH")], POLICY, LISTS, MONDAY_MS
    )

    assert universe.symbols == (perpetual("BTC"), perpetual("ETH"))


@pytest.mark.parametrize(
    ("one", "refusal"),
    [
        pytest.param(facts("ETH"), None, id="trades"),
        pytest.param(facts("ETH", last_close_ms=MONDAY_MS - 2 * HOUR_MS), Refusal.STALE, id="stale"),
        pytest.param(facts("ETH", delisted_ms=MONDAY_MS - 1), Refusal.DELISTED, id="delisted"),
        pytest.param(facts("ETH", volume_24h=10.0), Refusal.VOLUME_BELOW_MINIMUM, id="volume"),
        pytest.param(facts("ETH", liquidity=0.0, first_open_ms=MONDAY_MS - 1), None, id="weekly-filters-rest"),
        pytest.param(facts("DOGE"), Refusal.BLACKLISTED, id="blacklisted-meanwhile"),
    ],
)
def test_candle_filters(one, refusal):
    """Between two weekly choices a candidate must not be blacklisted, still trade, be fresh and have volume."""
    denied = refused_now(one, UniversePolicy(blacklist=("DOGE",)), MONDAY_MS)

    assert (denied[0] if denied else None) == refusal


def test_weeks_begin_on_monday():
    """The weekly moment is Monday 00:00 UTC, for moments before 1970-01-05 too."""
    assert week_start_ms(MONDAY_MS) == MONDAY_MS
    assert week_start_ms(MONDAY_MS + 7 * DAY_MS - 1) == MONDAY_MS
    assert week_start_ms(MONDAY_MS - 1) == MONDAY_MS - 7 * DAY_MS
    assert week_start_ms(0) == -3 * DAY_MS


@pytest.mark.parametrize(
    ("symbol", "asset", "quote"),
    [
        ("1000SHIB/USDT:USDT", "SHIB", "USDT"),
        ("1000000MOG/USDT:USDT", "MOG", "USDT"),
        ("1MBABYDOGE/USDT", "BABYDOGE", "USDT"),
        ("1INCH/USDT", "1INCH", "USDT"),
        ("BTC/USD", "BTC", "USD"),
        ("BTCUSDT", "BTCUSDT", ""),
    ],
)
def test_names(symbol, asset, quote):
    """The asset behind a contract on many units of it, and the quote, are read from the symbol."""
    assert (base_asset(symbol), quote_of(symbol)) == (asset, quote)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: UniversePolicy(max_symbols=0), id="no-symbols"),
        pytest.param(lambda: UniversePolicy(min_volume_24h=float("nan")), id="nan"),
        pytest.param(lambda: UniversePolicy(min_age_days=-1), id="negative"),
        pytest.param(lambda: UniversePolicy(mode=Mode.LIST), id="list-without-symbols"),
        pytest.param(lambda: UniversePolicy(symbols=("BTC",)), id="symbols-without-list"),
        pytest.param(lambda: facts("BTC", volume_24h=float("inf")), id="endless-volume"),
        pytest.param(lambda: facts("BTC", liquidity=-1.0), id="negative-liquidity"),
        pytest.param(lambda: facts("BTC", first_open_ms=MONDAY_MS), id="ends-before-it-begins"),
        pytest.param(
            lambda: weekly_candidates([facts("BTC"), facts("BTC")], POLICY, LISTS, MONDAY_MS), id="given-twice"
        ),
    ],
)
def test_nonsense_is_refused(make):
    """Rules and facts that mean nothing are refused with a sentence."""
    with pytest.raises(BadInputError, match=r"must|need|closed|given|go together"):
        make()
