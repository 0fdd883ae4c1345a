"""Limits of the account, of what is carried, and of one position: at and beside each, with the numbers compared."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from msgspec import UNSET

from inference.domain.decision import DenyCode, TradingState
from inference.domain.policy import Policy
from inference.domain.position import Account
from inference.domain.risk import RiskView
from inference.domain.signal import Direction
from inference.portfolio.exposure import PortfolioLoad
from inference.risk.limits import (
    drawdown_refusal,
    emergency_refusal,
    exposure_refusal,
    heat_refusal,
    is_reached,
    is_solvent,
    trading_state_refusal,
    weekly_refusal,
)
from inference.risk.refusal import Refusal, refuse
from inference.risk.tiers import (
    carried_by_cluster,
    liquidation_price,
    net_beta,
    portfolio_refusal,
    position_refusal,
    systemic_refusal,
)
from tests.worker_values import make_snapshot

BTC, ETH, SOL, NEW = (f"{name}/USDT:USDT" for name in ("BTC", "ETH", "SOL", "NEW"))
LONG, SHORT = Direction.LONG, Direction.SHORT
VIEW = RiskView(clusters={BTC: BTC, ETH: BTC, SOL: SOL}, betas={BTC: 1.0, ETH: 1.5, SOL: -0.5})
D = Decimal


def account(equity, *, day=10_000, week=10_000, peak=10_000):
    return Account(
        equity=D(equity), day_start_equity=D(day), peak_equity=D(peak),
        week_start_equity=UNSET if week is UNSET else D(week),
    )  # fmt: skip


def load(*, gross=0, heat=0, signed=None, undirected=None):
    signed = {name: D(value) for name, value in (signed or {}).items()}
    undirected = {name: D(value) for name, value in (undirected or {}).items()}
    return PortfolioLoad(
        symbols=frozenset(signed) | frozenset(undirected), in_flight=frozenset(undirected), gross_notional=D(gross),
        heat=D(heat), signed=signed, undirected=undirected,
    )  # fmt: skip


def told(refusal):
    """Return what a refusal says, None where there is none."""
    return None if refusal is None else (refusal.code, refusal.context)


def test_a_refusal_holds_its_numbers_as_they_are_written():
    """As text, digit by digit."""
    assert refuse(DenyCode.STALE_DATA, one=D("1.50"), two=0.25, three="x") == Refusal(
        DenyCode.STALE_DATA, {"one": "1.50", "two": "0.25", "three": "x"}
    )


# -- the account -------------------------------------------------------------------------------------------------------


def test_only_an_active_worker_enters():
    """Every other state is named."""
    assert trading_state_refusal(TradingState.ACTIVE) is None
    for state in (TradingState.REDUCING, TradingState.HALTED):
        expected = {"trading_state": state.value, "required": "ACTIVE"}
        assert told(trading_state_refusal(state)) == (DenyCode.TRADING_STATE, expected)


def test_a_stop_and_a_missing_input_are_refused_by_their_own_codes():
    """The stop is named first; neither is looked for where nothing is known of risk."""
    both = RiskView(emergency="drill", missing="DATA_FEED")
    blind = RiskView(missing="DATA_FEED")

    assert told(emergency_refusal(make_snapshot(risk=both))) == (
        DenyCode.EMERGENCY_STOP, {"reason": "drill", "required": "qtctl resume --reason ..."}
    )  # fmt: skip
    assert told(emergency_refusal(make_snapshot(risk=blind))) == (
        DenyCode.RISK_INPUT_MISSING, {"missing": "DATA_FEED", "required": "an input that is not stale"}
    )  # fmt: skip
    assert emergency_refusal(make_snapshot(risk=RiskView())) is None
    assert emergency_refusal(make_snapshot(risk=UNSET)) is None


def test_a_days_loss_is_refused_from_the_limit_on():
    """At three percent, with what was compared, and not a cent earlier."""
    assert drawdown_refusal(account("9700.01"), Policy()) is None
    assert told(drawdown_refusal(account(9700), Policy())) == (
        DenyCode.DAILY_DRAWDOWN,
        {"drawdown": "0.03", "maximum": "0.03", "equity": "9700", "day_start_equity": "10000"},
    )


@pytest.mark.parametrize("equity", ["0", "-0.5", "-5", "NaN", "Infinity"])
def test_an_account_without_equity_has_lost_everything(equity):
    """Whatever it began with, all is lost, and no more than all."""
    refusal = drawdown_refusal(account(equity, day=1), Policy())

    assert refusal is not None
    assert refusal.context["drawdown"] == "1"
    assert not is_solvent(account(equity))


def test_an_account_of_less_than_one_is_solvent():
    """A little equity is equity."""
    assert is_solvent(account("0.5", day="0.5"))
    assert drawdown_refusal(account("0.5", day="0.5"), Policy()) is None


def test_a_weeks_loss_is_refused_from_the_limit_on():
    """At six percent; where the week's start is not known, nothing is said of it."""
    policy = Policy()

    assert weekly_refusal(make_snapshot(account=account("9400.01")), policy) is None
    assert told(weekly_refusal(make_snapshot(account=account(9400)), policy)) == (
        DenyCode.WEEKLY_DRAWDOWN,
        {"drawdown": "0.06", "maximum": "0.06", "equity": "9400", "week_start_equity": "10000"},
    )
    assert weekly_refusal(make_snapshot(account=account(9400, week=UNSET)), policy) is None


def test_a_fall_from_the_peak_is_refused_from_its_wall_on():
    """At twenty percent, and only where risk is looked at."""
    held = account(8000, day=8000, week=8000, peak=10_000)
    less = replace(held, equity=D("8000.01"))

    assert told(weekly_refusal(make_snapshot(account=held, risk=RiskView()), Policy())) == (
        DenyCode.PEAK_DRAWDOWN, {"drawdown": "0.2", "maximum": "0.20", "equity": "8000", "peak_equity": "10000"}
    )  # fmt: skip
    assert weekly_refusal(make_snapshot(account=less, risk=RiskView()), Policy()) is None
    assert weekly_refusal(make_snapshot(account=held, risk=UNSET), Policy()) is None


def test_the_day_is_looked_at_before_the_week():
    """Who lost both is told of the day; who lost one is told of that."""
    codes = [
        (found := systemic_refusal(make_snapshot(account=one), Policy())) and found.code
        for one in (account(9000), account(9400, day=9400), account(9690, week=9690), account(10_000))
    ]

    assert codes == [DenyCode.DAILY_DRAWDOWN, DenyCode.WEEKLY_DRAWDOWN, DenyCode.DAILY_DRAWDOWN, None]


@pytest.mark.parametrize(
    ("drawdown", "equity", "start", "reached"),
    [
        ("0.1", "1", "1", True),
        ("0.11", "1", "1", True),
        ("0.09", "90", "100", True),
        ("0.09", "90.01", "100", False),
        ("0.09", "89", "100", True),
        ("0.09", "NaN", "100", False),
        ("0.09", "90", "NaN", False),
        ("0.09", "90", "Infinity", False),
        ("0.09", "-Infinity", "100", False),
    ],
)
def test_a_fall_has_reached_its_limit_by_division_or_by_multiplication(drawdown, equity, start, reached):
    """Either is enough; what is no number has only the first."""
    assert is_reached(D(drawdown), D(equity), D(start), D("0.1")) is reached


# -- what is carried ---------------------------------------------------------------------------------------------------


def test_exposure_and_heat_may_come_to_just_their_limits():
    """What is carried and what comes are told apart."""
    held, policy = account(10_000), Policy(max_exposure=D(2), max_portfolio_heat=D("0.06"))

    assert exposure_refusal(load(gross=19_000), notional=D(1000), account=held, policy=policy) is None
    assert told(exposure_refusal(load(gross=19_000), notional=D(1001), account=held, policy=policy)) == (
        DenyCode.EXPOSURE_ABOVE_MAXIMUM, {"open_notional": "19000", "notional": "1001", "maximum": "20000"}
    )  # fmt: skip
    assert heat_refusal(load(heat=590), risk=D(10), account=held, policy=policy) is None
    assert told(heat_refusal(load(heat=590), risk=D("10.5"), account=held, policy=policy)) == (
        DenyCode.HEAT_ABOVE_MAXIMUM, {"heat": "590", "risk": "10.5", "maximum": "600.00"}
    )  # fmt: skip


def carried(symbol, policy, *, direction=LONG, notional=1000, risk=1, view=VIEW, **changes):
    snapshot = make_snapshot(account=account(10_000), risk=view)
    return told(
        portfolio_refusal(
            snapshot, symbol=symbol, direction=direction, load=load(**changes), notional=D(notional), risk=D(risk),
            policy=policy,
        )
    )  # fmt: skip


def test_exposure_is_looked_at_before_heat_and_both_before_the_rest():
    """Each is refused where it alone is broken; without a view of risk nothing else is asked."""
    strict = Policy(max_concentration=D("0.01"))

    assert carried(BTC, strict, gross=19_500, heat=600)[0] is DenyCode.EXPOSURE_ABOVE_MAXIMUM
    assert carried(BTC, strict, gross=19_500, view=UNSET)[0] is DenyCode.EXPOSURE_ABOVE_MAXIMUM
    assert carried(BTC, strict, heat=600)[0] is DenyCode.HEAT_ABOVE_MAXIMUM
    assert carried(BTC, strict)[0] is DenyCode.CONCENTRATION_ABOVE_MAXIMUM
    assert carried(BTC, strict, view=UNSET) is None
    assert carried(BTC, Policy(), signed={BTC: 9000}) is None


def test_a_symbol_may_carry_just_its_share():
    """Both sides count the same, and what is in flight counts with what is held."""
    policy = Policy(max_concentration=D("0.5"))

    assert carried(BTC, policy, signed={BTC: -3000}, undirected={BTC: 1000}) is None
    assert carried(BTC, policy, signed={ETH: 9000}) is None
    assert carried(BTC, policy, signed={BTC: -3000}, undirected={BTC: 1001}) == (
        DenyCode.CONCENTRATION_ABOVE_MAXIMUM, {"open_notional": "4001", "notional": "1000", "maximum": "5000.0"}
    )  # fmt: skip


def test_a_cluster_may_carry_just_its_share():
    """Its symbols count, those of another do not, and what nothing is known of counts into every one."""
    policy = Policy(max_correlated_exposure=D("0.5"), correlation_threshold=D("0.8"))
    held = load(signed={BTC: 1000, SOL: 700, NEW: -50}, undirected={ETH: 30, BTC: 2})

    assert carried_by_cluster(ETH, VIEW, held) == 1082
    assert carried_by_cluster(SOL, VIEW, held) == 750
    assert carried_by_cluster(SOL, VIEW, load()) == 0
    assert carried(ETH, policy, signed={BTC: 3000, SOL: 9000}, undirected={NEW: 1000}) is None
    assert carried(ETH, policy, signed={BTC: 3000, SOL: 9000}, undirected={NEW: 1001}) == (
        DenyCode.CORRELATED_ABOVE_MAXIMUM,
        {"cluster": BTC, "open_notional": "4001", "notional": "1000", "maximum": "5000.0", "threshold": "0.8"},
    )


@pytest.mark.parametrize(
    ("changes", "missing"), [({"max_correlated_exposure": D(9)}, "cluster"), ({"max_btc_beta": D(9)}, "beta")]
)
def test_a_symbol_of_which_nothing_is_known_is_not_entered_where_it_counts(changes, missing):
    """What cannot be compared is refused, and says what is missing."""
    assert carried(NEW, Policy(**changes)) == (
        DenyCode.RISK_INPUT_MISSING, {"missing": missing, "required": "candles enough to correlate returns"}
    )  # fmt: skip
    assert carried(NEW, Policy()) is None


def test_net_beta_is_signed_and_unknown_symbols_count_as_bitcoin():
    """Long less short, each by its beta."""
    assert net_beta(VIEW, load(signed={BTC: 1000, ETH: -400, SOL: 100, NEW: 10})) == 1000 - 600 - 50 + 10
    assert net_beta(VIEW, load()) == 0


@pytest.mark.parametrize(
    ("symbol", "direction", "notional", "changes", "refused"),
    [
        pytest.param(BTC, LONG, 1000, {"signed": {BTC: 4000}}, None, id="just-the-limit"),
        pytest.param(BTC, LONG, 1001, {"signed": {BTC: 4000}}, ("4000", "0"), id="above-it"),
        pytest.param(BTC, SHORT, 1000, {"signed": {BTC: -4000}}, None, id="just-the-limit-short"),
        pytest.param(BTC, SHORT, 1001, {"signed": {BTC: -4000}}, ("-4000", "0"), id="above-it-short"),
        pytest.param(ETH, LONG, 1000, {"signed": {BTC: 3500}}, None, id="by-its-beta"),
        pytest.param(ETH, LONG, 1001, {"signed": {BTC: 3500}}, ("3500", "0"), id="above-it-by-its-beta"),
        pytest.param(BTC, LONG, 1000, {"signed": {BTC: 3000}, "undirected": {NEW: 1000}}, None, id="in-flight"),
        pytest.param(BTC, LONG, 1000, {"signed": {BTC: 3000}, "undirected": {NEW: 1001}}, ("3000", "1001"),
                     id="in-flight-above"),
        pytest.param(BTC, LONG, 1000, {"signed": {BTC: 3000}, "undirected": {SOL: 2002}}, ("3000", "1001"),
                     id="in-flight-counts-against-us-whatever-its-sign"),
        pytest.param(BTC, SHORT, 1000, {"signed": {BTC: 9000}}, None, id="back-towards-zero"),
        pytest.param(BTC, LONG, 1000, {"signed": {BTC: -9000}}, None, id="back-towards-zero-from-below"),
        pytest.param(BTC, SHORT, 18_000, {"signed": {BTC: 9000}}, ("9000", "0"), id="as-far-on-the-other-side"),
        pytest.param(SOL, LONG, 1000, {"signed": {BTC: 9000}}, None, id="a-hedge-by-its-negative-beta"),
    ],
)  # fmt: skip
def test_net_exposure_to_bitcoin_may_come_to_just_its_limit(symbol, direction, notional, changes, refused):
    """What is beyond it is refused, but for what takes it back towards zero."""
    policy = Policy(max_btc_beta=D("0.5"), max_exposure=D(9))
    found = carried(symbol, policy, direction=direction, notional=notional, **changes)
    if refused is None:
        assert found is None
        return
    code, context = found

    assert code is DenyCode.BETA_ABOVE_MAXIMUM
    assert {name: D(value) for name, value in context.items()} == {
        "net_notional": D(refused[0]), "in_flight": D(refused[1]), "notional": notional,
        "beta": D(str(VIEW.betas[symbol])), "maximum": 5000,
    }  # fmt: skip


# -- one position ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", [LONG, SHORT])
@pytest.mark.parametrize("leverage", [1, 3, 20])
def test_liquidation_is_where_margin_and_profit_are_the_maintenance(direction, leverage):
    """There, equity of the position is just what the venue asks for."""
    policy = Policy(leverage=leverage, maintenance_margin=D("0.01"))
    price = Fraction(liquidation_price(direction=direction, entry_price=D(30_000), policy=policy))
    profit = price - 30_000 if direction is LONG else 30_000 - price

    assert abs(Fraction(30_000, leverage) + profit - price / 100) < Fraction(1, 10**15)


@pytest.mark.parametrize(("direction", "sign"), [(LONG, -1), (SHORT, 1)])
def test_liquidation_may_be_just_so_many_stops_away(direction, sign):
    """Five stops of ten are the fifty that half a price is; of eleven they are not."""
    policy = Policy(leverage=2, maintenance_margin=D(0), min_liquidation_stops=D(5))

    def asked(stop, risk=RiskView()):  # noqa: B008 - frozen
        return told(
            position_refusal(
                make_snapshot(risk=risk), direction=direction, entry_price=D(100), stop_price=D(100 + sign * stop),
                policy=policy,
            )
        )  # fmt: skip

    assert asked(10) is None
    assert asked(11, UNSET) is None
    assert asked(11) == (
        DenyCode.LIQUIDATION_TOO_NEAR,
        {"liquidation_price": "50.0" if sign < 0 else "150.0", "distance": "50.0", "required": "55", "leverage": "2",
         "stop_price": str(100 + sign * 11)},
    )  # fmt: skip
