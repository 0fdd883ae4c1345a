"""What risk promises, whatever it is given: caps of sizes, walls, the breaker, clusters and the governor."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from inference.decision import decide
from inference.domain.decision import Approved, Candidate, Denied, DenyCode
from inference.domain.market import Quote
from inference.domain.policy import Policy
from inference.domain.position import Account, Position
from inference.domain.risk import BreakerState, BreakerView, RiskView
from inference.domain.signal import Direction
from inference.portfolio.correlation import LEAST_RETURNS, co_movement
from inference.portfolio.exposure import portfolio_load
from inference.risk.budget import confidence_multiplier, kelly_share, risk_share, volatility_multiplier
from inference.risk.refusal import Refusal
from inference.risk.tiers import liquidation_price, net_beta
from tests.worker_values import T0, make_candidate, make_snapshot

NOW = T0 + 1000
STEP = 300_000
VIEW = RiskView(clusters={"BTC/USDT:USDT": "BTC/USDT:USDT"}, betas={"BTC/USDT:USDT": 1.0})
BTC = "BTC/USDT:USDT"
decimals = st.decimals(allow_nan=True, allow_infinity=True, places=4)


def account(equity, *, day=10_000, week=10_000, peak=10_000):
    return Account(
        equity=Decimal(equity),
        day_start_equity=Decimal(day),
        peak_equity=Decimal(peak),
        week_start_equity=Decimal(week),
    )


def decided(policy=Policy(), **changes):  # noqa: B008 - frozen
    (decision,) = decide(make_snapshot(**{"risk": VIEW, "account": account(10_000), **changes}), policy, NOW)
    return decision


# -- sizing ------------------------------------------------------------------------------------------------------------

policies = st.builds(
    Policy,
    min_size_multiplier=st.sampled_from([Decimal("0.5"), Decimal(1)]),
    max_size_multiplier=st.sampled_from([Decimal(1), Decimal("1.5")]),
    max_risk_per_trade=st.sampled_from([Decimal("0.01"), Decimal("0.012"), Decimal("0.05")]),
    kelly_fraction=st.sampled_from([None, Decimal("0.1"), Decimal("0.5")]),
    target_volatility=st.sampled_from([None, Decimal("0.002"), Decimal("0.05")]),
    unknown_regime_size=st.sampled_from([Decimal(0), Decimal("0.5"), Decimal(1)]),
)


@given(
    policies,
    st.floats(0.5, 1.0),
    st.floats(0.01, 20_000),
    st.decimals(-10, 2000, places=3),
    st.decimals("0.001", 2000, places=3),
    st.sampled_from(["unknown", "trending_calm"]),
)
def test_no_multiplier_lifts_a_risk_above_its_cap(policy, confidence, atr, gain, loss, regime):
    """Whatever confidence, range, regime and odds say, no trade risks more than the cap, nor than its part of Kelly."""
    candidate = make_candidate(atr=atr, probability=confidence, regime=regime)
    share = risk_share(candidate, gain=gain, loss=loss, policy=policy)
    if isinstance(share, Refusal):
        assert share.code is DenyCode.NO_EDGE_TO_BET
        return

    assert 0 < share <= policy.max_risk_per_trade
    assert share <= policy.risk_per_trade * policy.max_size_multiplier
    if policy.kelly_fraction is not None:
        assert share <= policy.kelly_fraction * kelly_share(confidence, gain=gain, loss=loss)


@pytest.mark.parametrize(
    ("confidence", "expected"), [(0.45, "0.5"), (0.7, "1.0"), (0.8, "1.2"), (0.95, "1.5"), (1.0, "1.5")]
)
def test_the_multiplier_of_confidence_is_clamped(confidence, expected):
    """The source's formula, 1 at 0.70, within 0.5 and 1.5; with the default bounds it is always 1."""
    bounded = Policy(min_size_multiplier=Decimal("0.5"), max_size_multiplier=Decimal("1.5"))

    assert confidence_multiplier(confidence, bounded) == Decimal(expected)
    assert confidence_multiplier(confidence, Policy()) == 1


@pytest.mark.parametrize(
    ("confidence", "gain", "loss", "expected"),
    [(0.6, 1, 1, "0.2"), (0.5, 2, 1, "0.25"), (0.5, 1, 1, "0"), (0.9, -1, 1, "0"), (0.9, 1, 0, "0")],
)
def test_kelly_share_is_the_textbooks(confidence, gain, loss, expected):
    """An edge of 20 percent at even odds bets a fifth; a bet without gain bets nothing."""
    assert kelly_share(confidence, gain=Decimal(gain), loss=Decimal(loss)) == Decimal(expected)


def test_a_range_above_its_target_shrinks_and_one_below_grows_nothing():
    """Twice the target halves a size; half of it leaves a size as it is."""
    policy = Policy(target_volatility=Decimal("0.01"))

    assert volatility_multiplier(Decimal("0.02"), policy) == Decimal("0.5")
    assert volatility_multiplier(Decimal("0.005"), policy) == 1


# -- tiers and governor ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "policy", "code"),
    [
        pytest.param({"risk": replace(VIEW, emergency="drill")}, Policy(), DenyCode.EMERGENCY_STOP, id="stopped"),
        pytest.param({"risk": replace(VIEW, missing="DATA_FEED")}, Policy(), DenyCode.RISK_INPUT_MISSING, id="blind"),
        pytest.param(
            {"risk": replace(VIEW, breaker=BreakerView(state=BreakerState.OPEN, reason="x", until_ms=NOW + 1))},
            Policy(),
            DenyCode.BREAKER_OPEN,
            id="breaker-open",
        ),
        pytest.param(
            {"risk": replace(VIEW, breaker=BreakerView(state=BreakerState.HALF_OPEN, until_ms=NOW + 1, is_tried=True))},
            Policy(),
            DenyCode.BREAKER_OPEN,
            id="try-is-taken",
        ),
        pytest.param({"account": account(9_800, week=10_430)}, Policy(), DenyCode.WEEKLY_DRAWDOWN, id="six-percent"),
        pytest.param(
            {"account": account(9_800, week=9_800, peak=12_250)}, Policy(), DenyCode.PEAK_DRAWDOWN, id="fifth-gone"
        ),
        pytest.param(
            {"candidates": (make_candidate(atr=2_000.0),)},
            Policy(),
            DenyCode.LIQUIDATION_TOO_NEAR,
            id="three-stops-to-liquidation",
        ),
        pytest.param(
            {}, Policy(leverage=30, min_liquidation_stops=Decimal(10)), DenyCode.LIQUIDATION_TOO_NEAR, id="30x"
        ),
        pytest.param(
            {}, Policy(max_concentration=Decimal("0.009")), DenyCode.CONCENTRATION_ABOVE_MAXIMUM, id="concentration"
        ),
        pytest.param(
            {}, Policy(max_correlated_exposure=Decimal("0.009")), DenyCode.CORRELATED_ABOVE_MAXIMUM, id="cluster"
        ),
        pytest.param({}, Policy(max_btc_beta=Decimal("0.009")), DenyCode.BETA_ABOVE_MAXIMUM, id="beta"),
        pytest.param(
            {"risk": RiskView()},
            Policy(max_btc_beta=Decimal(1)),
            DenyCode.RISK_INPUT_MISSING,
            id="nothing-correlated-yet",
        ),
        pytest.param({}, Policy(governor_min_confidence=0.81), DenyCode.VETO_CONFIDENCE, id="veto-confidence"),
        pytest.param(
            {}, Policy(governor_max_volatility=Decimal("0.001")), DenyCode.VETO_VOLATILITY, id="veto-volatility"
        ),
        pytest.param(
            {"account": account(9_750)},
            Policy(governor_drawdown_share=Decimal("0.8")),
            DenyCode.VETO_DRAWDOWN,
            id="veto-drawdown",
        ),
        pytest.param(
            {"candidates": (make_candidate(regime="unknown"),)},
            Policy(unknown_regime_size=Decimal(0)),
            DenyCode.NO_EDGE_TO_BET,
            id="nothing-where-no-regime-is-known",
        ),
    ],
)
def test_each_refusal_of_risk(changes, policy, code):
    """Each guard refuses with its own code, and with the numbers it compared, when its condition alone is broken."""
    decision = decided(policy, **changes)

    assert isinstance(decision, Denied)
    assert decision.code is code
    assert decision.context
    assert all(decision.context.values())


def test_a_snapshot_without_a_view_of_risk_is_decided_as_before():
    """Journals from before there were tiers replay as they were made: what reads the view is not asked."""
    assert isinstance(decided(risk=UNSET), Approved)
    assert isinstance(decided(risk=UNSET, account=account(9_800, week=9_800, peak=20_000)), Approved)


def test_a_companion_on_the_same_side_is_vetoed_and_a_hedge_is_not():
    """The governor reads the portfolio's one calculation: of one cluster only one side is held once."""
    eth = "ETH/USDT:USDT"
    view = RiskView(clusters={BTC: BTC, eth: BTC}, betas={BTC: 1.0, eth: 1.0})
    policy = Policy(governor_max_companions=0)
    held = Position(
        symbol=eth,
        direction=Direction.LONG,
        quantity=Decimal(1),
        entry_price=Decimal(100),
        entry_time_ms=T0,
        trade_id="x",
    )

    same = decided(policy, risk=view, positions={eth: held})
    other = decided(policy, risk=view, positions={eth: replace(held, direction=Direction.SHORT)})

    assert isinstance(same, Denied)
    assert (same.code, same.context["companions"]) == (DenyCode.VETO_CORRELATION, eth)
    assert isinstance(other, Approved)


def test_a_half_open_breaker_lets_one_of_many_through():
    """Two good candidates, one try."""
    names = (BTC, "ETH/USDT:USDT")
    view = RiskView(
        breaker=BreakerView(state=BreakerState.HALF_OPEN, until_ms=NOW + 1),
        clusters={name: name for name in names},
        betas=dict.fromkeys(names, 1.0),
    )
    snapshot = make_snapshot(tuple(make_candidate(name) for name in names), risk=view, account=account(10_000))

    found = decide(snapshot, Policy(), NOW)

    assert [type(one) for one in found] == [Approved, Denied]
    assert isinstance(found[1], Denied)
    assert found[1].code is DenyCode.BREAKER_OPEN


@given(
    st.sampled_from([Direction.LONG, Direction.SHORT]),
    st.integers(1, 30),
    st.decimals("0.01", 100_000, places=2),
    st.decimals(0, "0.03", places=4),
)
def test_liquidation_lies_beyond_the_entry_and_higher_leverage_brings_it_nearer(
    direction, leverage, entry, maintenance
):
    """The price of liquidation is on the losing side of the entry wherever the margin exceeds its maintenance."""
    near = Policy(leverage=leverage, maintenance_margin=maintenance)
    far = Policy(leverage=max(1, leverage - 1), maintenance_margin=maintenance)
    price = liquidation_price(direction=direction, entry_price=entry, policy=near)
    further = liquidation_price(direction=direction, entry_price=entry, policy=far)

    assert (price <= entry) is (direction is Direction.LONG) or price == entry
    assert abs(entry - further) >= abs(entry - price)


def _walks(rng, beta, noise, count=300):
    btc = rng.normal(0, 0.001, count)
    return btc, beta * btc + rng.normal(0, noise, count)


def _closes(returns, last_ms=T0 - 2 * STEP):
    values = 100 * np.exp(np.cumsum(np.concatenate([[0.0], returns])))
    return last_ms - STEP * np.arange(len(values))[::-1], values


def test_clusters_and_betas_of_a_market_that_is_known():
    """A symbol made of 1.5 BTC and a little noise is in BTC's cluster with that beta; one of noise alone is not."""
    rng = np.random.default_rng(5)
    btc, eth = _walks(rng, 1.5, 0.0002)
    lone = rng.normal(0, 0.001, 300)
    closes = {"BTC/X": _closes(btc), "ETH/X": _closes(eth), "AAA/X": _closes(lone), "NEW/X": _closes(btc[-10:])}

    found = co_movement(closes, last_open_ms=T0 - 2 * STEP, step_ms=STEP, window=288, threshold=0.7)

    assert found.clusters == {"AAA/X": "AAA/X", "BTC/X": "BTC/X", "ETH/X": "BTC/X"}
    assert found.betas["BTC/X"] == 1.0
    assert found.betas["ETH/X"] == pytest.approx(1.5, abs=0.05)
    assert abs(found.betas["AAA/X"]) < 0.3


@given(st.integers(0, 2**32), st.integers(2, 6), st.floats(0.1, 0.95))
def test_a_cluster_holds_whoever_is_tied_to_any_of_it(seed, count, threshold):
    """Clusters are the connected parts of the pairs above the threshold, as an independent walk finds them."""
    rng = np.random.default_rng(seed)
    common = rng.normal(0, 1, 100)
    returns = {f"S{n}/X": 0.01 * (rng.uniform() * common + rng.normal(0, 0.7, 100)) for n in range(count)}
    found = co_movement(
        {name: _closes(one) for name, one in returns.items()},
        last_open_ms=T0 - 2 * STEP, step_ms=STEP, window=100, threshold=threshold,
    )  # fmt: skip
    names = sorted(returns)
    tied = np.corrcoef(np.array([returns[name] for name in names])) > threshold
    reach = np.linalg.matrix_power(tied.astype(int), count) > 0
    for row, one in enumerate(names):
        for column, other in enumerate(names):
            if abs(np.corrcoef(returns[one], returns[other])[0, 1] - threshold) > 1e-9:
                assert (found.clusters[one] == found.clusters[other]) is bool(reach[row, column])


def test_holes_and_hostile_closes_correlate_with_nothing():
    """Zero, negative, infinite and missing closes are no returns; a symbol without its last candle is left out."""
    rng = np.random.default_rng(2)
    times, values = _closes(rng.normal(0, 0.001, 300))
    broken = values.copy()
    broken[::3] = [0.0, -1.0, math.inf, math.nan] * 25 + [0.0]
    closes = {"BTC/X": (times, values), "BAD/X": (times, broken), "OLD/X": (times[:-1], values[:-1])}

    found = co_movement(closes, last_open_ms=int(times[-1]), step_ms=STEP, window=288, threshold=0.7)

    assert set(found.clusters) <= {"BTC/X", "BAD/X"}
    assert all(math.isfinite(one) for one in found.betas.values())
    assert LEAST_RETURNS > 2


def test_what_nothing_is_known_of_counts_into_every_cluster_and_with_a_beta_of_one():
    """A position without candles is no way around a limit."""
    unknown = Position(
        symbol="ZZZ/USDT:USDT", direction=Direction.LONG, quantity=Decimal(1), entry_price=Decimal(9_990),
        entry_time_ms=T0, trade_id="x",
    )  # fmt: skip
    load = portfolio_load(positions={unknown.symbol: unknown}, in_flight={}, heat={})
    decision = decided(Policy(max_correlated_exposure=Decimal(1)), positions={unknown.symbol: unknown})

    assert net_beta(VIEW, load) == 9_990
    assert isinstance(decision, Denied)
    assert decision.code is DenyCode.CORRELATED_ABOVE_MAXIMUM


# -- hostile numbers ---------------------------------------------------------------------------------------------------


@given(equity=decimals, day=decimals, week=decimals, peak=decimals)
def test_an_account_of_nonsense_enters_nothing_and_breaks_nothing(equity, day, week, peak):
    """NaN, infinite and negative money is answered by a refusal, or by an entry that keeps to its caps."""
    given_account = Account(equity=equity, day_start_equity=day, peak_equity=peak, week_start_equity=week)
    decision = decided(account=given_account)
    if isinstance(decision, Approved):
        assert equity.is_finite()
        assert decision.risk <= equity * Policy().risk_per_trade


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_prediction_that_is_no_number_is_no_candidate(value):
    """NaN and infinite predictions, ranges and closes are refused where they are made."""
    with pytest.raises(ValueError, match="finite"):
        make_candidate(probability=value)
    with pytest.raises(ValueError, match="finite"):
        make_candidate(atr=value)
    with pytest.raises(ValueError, match="finite"):
        Candidate(signal=make_candidate().signal, atr=1.0, close=value, threshold=0.5)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"quotes": {BTC: Quote(symbol=BTC, bid=Decimal(-5), ask=Decimal(5), event_time_ms=T0)}},
                     DenyCode.NO_QUOTE, id="negative-price"),
        pytest.param({"quotes": {BTC: Quote(symbol=BTC, bid=Decimal(6), ask=Decimal(5), event_time_ms=T0)}},
                     DenyCode.NO_QUOTE, id="crossed"),
        pytest.param({"quotes": {BTC: Quote(symbol=BTC, bid=Decimal(5), ask=Decimal(6), event_time_ms=T0 + 10**9)}},
                     DenyCode.STALE_DATA, id="quote-of-the-future"),
        pytest.param({"candidates": (make_candidate(feature_time_ms=T0 + STEP),)}, DenyCode.STALE_DATA, id="future"),
        pytest.param({"candle_close_ms": T0 - STEP}, DenyCode.STALE_DATA, id="clock-went-back"),
        pytest.param({"candidates": (make_candidate(atr=-5.0),)}, DenyCode.STOP_UNUSABLE, id="negative-range"),
        pytest.param({"candidates": (make_candidate(atr=1e300),)}, DenyCode.STOP_UNUSABLE, id="absurd-range"),
    ],
)  # fmt: skip
def test_hostile_inputs_are_denied_with_a_code(changes, code):
    """Nonsense of the market is refused, named, and trades nothing."""
    decision = decided(**changes)

    assert isinstance(decision, Denied)
    assert decision.code is code


@given(st.integers(1, 10**9), st.integers(1, 7))
def test_a_loss_of_just_the_limit_has_reached_it(start, thirds):
    """However a start divides, equity that fell by exactly the limit enters nothing."""
    begun = Decimal(start) / thirds
    just = begun * (1 - Policy().max_daily_drawdown)
    decision = decided(account=Account(equity=just, day_start_equity=begun, peak_equity=begun))

    assert isinstance(decision, Denied)
    assert decision.code is DenyCode.DAILY_DRAWDOWN
