"""What holds of every universe, whatever the market: size, order, monotony, and no dependence on the order of facts."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from feature_store.universe.selection import DAY_MS, Mode, UniversePolicy, refused_now, weekly_candidates
from tests.universe_support import LISTS, MONDAY_MS, facts

NAMES = ("BTC", "ETH", "SOL", "ARB", "LINK", "PEPE", "AAA", "BBB", "CCC")
SOME = st.sampled_from([0.0, 1.0, 2.0, 1e6, 1e6 + 1, 5e7])


@st.composite
def _markets(draw):
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    return [
        facts(
            name,
            volume_24h=draw(SOME),
            liquidity=draw(SOME),
            first_open_ms=MONDAY_MS - draw(st.integers(1, 40)) * DAY_MS,
            last_close_ms=MONDAY_MS - draw(st.sampled_from([0, 1, 61])) * 60_000,
            delisted_ms=draw(st.sampled_from([None, MONDAY_MS, MONDAY_MS + 1])),
        )
        for name in names
    ]


POLICIES = st.builds(
    UniversePolicy,
    mode=st.sampled_from([Mode.ALL, Mode.L1L2_TOP]),
    min_volume_24h=SOME,
    min_liquidity=SOME,
    min_age_days=st.sampled_from([0.0, 14.0, 30.0]),
    max_symbols=st.integers(1, 10),
    blacklist=st.sampled_from([(), ("BTC",), ("PEPE", "AAA/USDT:USDT")]),
)


@given(_markets(), POLICIES, st.randoms())
def test_a_universe_is_a_function_of_the_facts(market, policy, rng):
    """The order in which facts come changes nothing, and each symbol is judged once."""
    universe = weekly_candidates(market, policy, LISTS, MONDAY_MS)
    shuffled = list(market)
    rng.shuffle(shuffled)

    assert weekly_candidates(shuffled, policy, LISTS, MONDAY_MS) == universe
    assert sorted(one.symbol for one in universe.verdicts) == sorted(one.symbol for one in market)


@given(_markets(), POLICIES)
def test_size_and_order(market, policy):
    """Never more than the cap; ranks count from one; nobody trades less than who comes after."""
    universe = weekly_candidates(market, policy, LISTS, MONDAY_MS)
    included = [one for one in universe.verdicts if one.is_included]

    assert len(included) <= policy.max_symbols
    assert [one.rank for one in included] == list(range(1, len(included) + 1))
    volumes = [one.facts.volume_24h for one in included]
    assert volumes == sorted(volumes, reverse=True)
    assert all(one.rank is None for one in universe.verdicts if not one.is_included)


@given(_markets(), POLICIES, SOME, SOME, st.sampled_from([0.0, 14.0, 30.0]))
def test_stricter_thresholds_let_no_one_in(market, policy, volume, liquidity, age):
    """With room for all, raising a threshold only removes; under a cap, nobody who stays loses a place."""
    strict = replace(
        policy,
        min_volume_24h=max(volume, policy.min_volume_24h),
        min_liquidity=max(liquidity, policy.min_liquidity),
        min_age_days=max(age, policy.min_age_days),
    )
    before, after = (
        {one.symbol: one.rank for one in weekly_candidates(market, rules, LISTS, MONDAY_MS).verdicts if one.rank}
        for rules in (replace(policy, max_symbols=99), replace(strict, max_symbols=99))
    )

    assert set(after) <= set(before)
    assert all(after[symbol] <= before[symbol] for symbol in after)


@given(_markets(), POLICIES)
def test_a_candidate_may_be_traded_at_its_moment(market, policy):
    """What the weekly choice includes, the filters of that very candle let through, where the venue is not silent."""
    market = [replace(one, last_close_ms=MONDAY_MS) for one in market]
    universe = weekly_candidates(market, policy, LISTS, MONDAY_MS)

    assert [
        one.symbol for one in universe.verdicts if one.is_included and refused_now(one.facts, policy, MONDAY_MS)
    ] == []
