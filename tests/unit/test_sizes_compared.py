"""Sizes, what the governor vetoes, bias and committee: at and beside each boundary, with the numbers compared."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from msgspec import UNSET

from inference.domain.bias import SignalBias
from inference.domain.decision import Candidate, DenyCode
from inference.domain.governance import Resolution, Role, Stance, Vote
from inference.domain.policy import Policy
from inference.domain.position import Account
from inference.domain.risk import RiskView
from inference.domain.signal import Direction
from inference.portfolio.exposure import PortfolioLoad
from inference.risk.bias import bias_refusal
from inference.risk.budget import confidence_multiplier, kelly_share, risk_share, volatility_multiplier
from inference.risk.committee import committee_budget, committee_cap, committee_refusal
from inference.risk.governor import GovernorInputs, governor_inputs, governor_veto, size_veto
from inference.risk.sizing import Size, gain_per_unit, loss_per_unit, quantity_for_risk
from tests.worker_values import make_candidate, make_instrument, make_signal, make_snapshot

BTC, ETH, SOL, NEW = (f"{name}/USDT:USDT" for name in ("BTC", "ETH", "SOL", "NEW"))
LONG, SHORT, FLAT = Direction
D = Decimal


def told(refusal):
    """Return what a refusal says, None where there is none."""
    return None if refusal is None else (refusal.code, refusal.context)


def load(**signed):
    """Return what is carried, by the first letters of symbols."""
    named = {f"{name}/USDT:USDT": D(value) for name, value in signed.items()}
    return PortfolioLoad(symbols=frozenset(named), in_flight=frozenset(), gross_notional=D(0), heat=D(0), signed=named)


# -- budget ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("confidence", "expected"), [(0.6, "0.80"), (0.7, "1.00"), (0.71, "1.02"), (0.8, "1.20")])
def test_confidence_moves_a_size_by_two_for_each_unit(confidence, expected):
    """Between the bounds the formula is exact, in decimals."""
    policy = Policy(min_size_multiplier=D("0.1"), max_size_multiplier=D("1.5"))

    assert str(confidence_multiplier(confidence, policy)) == expected


def test_a_range_of_just_its_target_shrinks_nothing():
    """Nor does any, where there is no target."""
    policy = Policy(target_volatility=D("0.01"))

    assert str(volatility_multiplier(D("0.01"), policy)) == "1"
    assert volatility_multiplier(D("0.04"), policy) == D("0.25")
    assert volatility_multiplier(D(1), Policy()) == 1


@pytest.mark.parametrize(
    ("confidence", "gain", "loss", "expected"),
    [
        (0.6, "2", "1", "0.4"),
        (0.6, "1", "2", "-0.2"),
        (0.6, "0.5", "0.5", "0.2"),
        (0.9, "0", "1", "0"),
        (0.9, "1", "0", "0"),
        (0.9, "0", "0", "0"),
        (0.9, "-0.5", "1", "0"),
        (0.9, "1", "-0.5", "0"),
    ],
)
def test_kellys_share_is_right_less_wrong_by_the_odds(confidence, gain, loss, expected):
    """A bet that gains nothing, or loses nothing, has no odds and no share."""
    assert kelly_share(confidence, gain=D(gain), loss=D(loss)) == D(expected)


def shared(policy, *, confidence=0.8, gain="1", loss="1", close=50_000.0, **changes):
    candidate = replace(make_candidate(probability=confidence, **changes), close=close)
    found = risk_share(candidate, gain=D(gain), loss=D(loss), policy=policy)
    return found if isinstance(found, Decimal) else told(found)


def test_a_share_is_the_base_by_each_of_its_factors():
    """Confidence, range, regime: each by itself, and each cap by itself."""
    base = Policy(risk_per_trade=D("0.01"))
    bold = replace(base, max_size_multiplier=D("1.5"), max_risk_per_trade=D("0.02"))

    assert shared(base, regime="trending_calm") == D("0.01")
    assert shared(bold, regime="trending_calm") == D("0.012")
    assert shared(replace(base, target_volatility=D("0.001")), atr=100.0) == D("0.005")
    assert shared(replace(base, unknown_regime_size=D("0.5"))) == D("0.005")
    assert shared(replace(base, unknown_regime_size=D("0.5")), regime="trending_calm") == D("0.01")
    assert shared(replace(base, kelly_fraction=D("0.01"))) == D("0.006")
    assert shared(replace(base, kelly_fraction=D("0.5"))) == D("0.01")
    assert shared(replace(bold, max_risk_per_trade=D("0.011"))) == D("0.011")


@pytest.mark.parametrize(("close", "expected"), [(0.0, "0.01"), (-1.0, "0.01"), (0.5, "0.00005")])
def test_without_a_price_there_is_no_range_to_shrink_by(close, expected):
    """A price of less than one is one."""
    policy = Policy(risk_per_trade=D("0.01"), target_volatility=D("0.005"))

    assert shared(policy, close=close, atr=0.5) == D(expected)


def test_a_bet_that_is_not_worth_taking_is_refused_with_its_odds():
    """Kelly's share is zero or less."""
    policy = Policy(kelly_fraction=D("0.5"))

    assert shared(policy, confidence=0.5) == (
        DenyCode.NO_EDGE_TO_BET, {"kelly": "0.0", "confidence": "0.5", "gain": "1", "loss": "1"}
    )  # fmt: skip
    assert shared(replace(policy, kelly_fraction=D("0.02")), confidence=0.75) == D("0.01")


def test_a_share_below_its_minimum_is_refused_and_one_of_just_it_is_not():
    """So is one of nothing, where there is no minimum."""
    policy = Policy(risk_per_trade=D("0.01"), min_risk_per_trade=D("0.005"), unknown_regime_size=D("0.5"))
    less = replace(policy, unknown_regime_size=D("0.49"))
    nothing = Policy(unknown_regime_size=D(0))

    assert shared(policy) == D("0.005")
    assert shared(less) == (
        DenyCode.NO_EDGE_TO_BET, {"share": "0.0049", "minimum": "0.005", "regime": "unknown"}
    )  # fmt: skip
    assert shared(nothing)[0] is DenyCode.NO_EDGE_TO_BET
    assert shared(replace(nothing, unknown_regime_size=D("0.001"))) == D("0.00001")


# -- sizing ------------------------------------------------------------------------------------------------------------

COSTS = Policy(taker_fee=D("0.001"), slippage=D("0.0005"))


@pytest.mark.parametrize(("stop", "expected"), [("90", "10.285"), ("110", "10.315")])
def test_a_unit_loses_its_distance_and_the_costs_of_both_sides(stop, expected):
    """0.0015 of each of the two prices is paid, whichever side it is."""
    assert loss_per_unit(entry_price=D(100), stop_price=D(stop), policy=COSTS) == D(expected)


@pytest.mark.parametrize(("target", "expected"), [("110", "9.685"), ("90", "9.715"), ("100", "-0.3")])
def test_a_unit_gains_its_distance_less_the_costs_of_both_sides(target, expected):
    """A target that is not away gains less than nothing."""
    assert gain_per_unit(entry_price=D(100), target_price=D(target), policy=COSTS) == D(expected)


FREE = Policy(taker_fee=D(0), slippage=D(0), min_notional=D(10), max_notional=D(2000))


def sized(*, equity="10000", stop="90", policy=FREE, share=None, **steps):
    instrument = make_instrument(**{name: D(value) for name, value in steps.items()})
    found = quantity_for_risk(
        equity=D(equity), entry_price=D(100), stop_price=D(stop), policy=policy, instrument=instrument,
        share=None if share is None else D(share),
    )  # fmt: skip
    return found if isinstance(found, Size) else told(found)


def test_the_smallest_of_three_caps_a_quantity():
    """What the budget allows, what the largest notional allows, what the venue takes."""
    assert sized() == Size(quantity=D(10), notional=D(1000), risk=D(100))
    assert sized(share="0.005") == Size(quantity=D(5), notional=D(500), risk=D(50))
    assert sized(stop="99") == Size(quantity=D(20), notional=D(2000), risk=D(20))
    assert sized(max_quantity="7.5") == Size(quantity=D("7.5"), notional=D(750), risk=D(75))
    assert sized(quantity_step="3") == Size(quantity=D(9), notional=D(900), risk=D(90))


def test_a_quantity_below_the_step_or_the_minimum_is_refused():
    """Just the minimum is enough; it is never raised."""
    assert sized(quantity_step="11") == (
        DenyCode.QUANTITY_BELOW_STEP, {"quantity": "10.00", "step": "11", "minimum": "0.001"}
    )  # fmt: skip
    assert sized(min_quantity="10").quantity == 10
    assert sized(min_quantity="10.001") == (
        DenyCode.QUANTITY_BELOW_STEP, {"quantity": "10.00", "step": "0.001", "minimum": "10.001"}
    )  # fmt: skip
    assert sized(equity="-1", min_quantity="-99")[0] is DenyCode.QUANTITY_BELOW_STEP
    assert sized(equity="0", min_quantity="-99", min_notional="-99")[0] is DenyCode.QUANTITY_BELOW_STEP
    assert sized(equity="500").quantity == D("0.5")


def test_a_notional_below_either_minimum_is_refused():
    """Just the larger of the two is enough."""
    assert sized(equity="1000", policy=replace(FREE, min_notional=D(100))).notional == 100
    assert sized(equity="1000", min_notional="100").notional == 100
    assert sized(equity="1000", policy=replace(FREE, min_notional=D("100.5")), min_notional="50") == (
        DenyCode.NOTIONAL_BELOW_MINIMUM, {"notional": "100.00", "minimum": "100.5", "quantity": "1.00"}
    )  # fmt: skip
    assert sized(equity="1000", min_notional="101")[1]["minimum"] == "101"


# -- governor ----------------------------------------------------------------------------------------------------------

VIEW = RiskView(clusters={BTC: BTC, ETH: BTC, SOL: SOL}, betas={})
CALM = GovernorInputs(
    confidence=0.8, volatility=D("0.01"), daily_drawdown=D(0), weekly_drawdown=D(0), companions=()
)  # fmt: skip


def looked_at(candidate=None, *, carried=None, view=VIEW, **marks):
    held = Account(
        equity=D(9900), day_start_equity=D(10_000), peak_equity=D(10_000),
        week_start_equity=marks.get("week", D(11_000)),
    )  # fmt: skip
    snapshot = make_snapshot(account=held, risk=view)
    return governor_inputs(
        candidate or make_candidate(BTC, atr=500.0), snapshot=snapshot, load=carried or load(), policy=Policy()
    )


def test_the_governor_looks_at_these_and_nothing_else():
    """Confidence, range by price, both drawdowns by their limits, and who else is carried on the same side."""
    carried = load(BTC=10, ETH=20, SOL=30, NEW=40)

    assert looked_at(carried=carried) == GovernorInputs(
        confidence=0.8,
        volatility=D("0.01"),
        daily_drawdown=D("0.01") / D("0.03"),
        weekly_drawdown=(1 - D(9900) / D(11_000)) / D("0.06"),
        companions=(ETH, NEW),
    )
    assert looked_at(view=UNSET) is None
    assert looked_at(week=UNSET).weekly_drawdown == 1


@pytest.mark.parametrize(("close", "expected"), [(0.0, "1"), (-2.0, "1"), (0.5, "2"), (2.0, "0.5")])
def test_without_a_price_volatility_is_all_of_it(close, expected):
    """What cannot be divided is not small."""
    found = looked_at(Candidate(signal=make_signal(BTC), atr=1.0, close=close, threshold=0.5))

    assert found.volatility == D(expected)


@pytest.mark.parametrize(
    ("direction", "carried", "companions"),
    [
        (LONG, {"ETH": 5}, (ETH,)),
        (LONG, {"ETH": "0.5"}, (ETH,)),
        (LONG, {"ETH": 0}, ()),
        (LONG, {"ETH": -5}, ()),
        (SHORT, {"ETH": -5}, (ETH,)),
        (SHORT, {"ETH": "-0.5"}, (ETH,)),
        (SHORT, {"ETH": 5}, ()),
        (LONG, {"BTC": 5}, ()),
        (LONG, {"SOL": 5}, ()),
        (LONG, {"NEW": 5, "ETH": 5}, (ETH, NEW)),
        (LONG, {"ZZZ": 5, "NEW": 5}, (NEW, "ZZZ/USDT:USDT")),
    ],
)
def test_companions_are_others_of_the_cluster_on_the_same_side(direction, carried, companions):
    """What nothing is known of is a companion of everybody; they are named in order."""
    found = looked_at(make_candidate(BTC, direction=direction), carried=load(**carried))

    assert found.companions == companions


@pytest.mark.parametrize(
    ("changes", "policy", "expected"),
    [
        pytest.param({}, {}, None, id="calm"),
        pytest.param({"confidence": 0.5}, {}, None, id="just-confident"),
        pytest.param({"confidence": 0.49}, {},
                     (DenyCode.VETO_CONFIDENCE, {"confidence": "0.49", "minimum": "0.5"}), id="confidence"),
        pytest.param({"volatility": D("0.02")}, {"governor_max_volatility": D("0.02")}, None, id="just-volatile"),
        pytest.param({"volatility": D(9)}, {}, None, id="volatility-is-no-limit"),
        pytest.param({"volatility": D("0.021")}, {"governor_max_volatility": D("0.02")},
                     (DenyCode.VETO_VOLATILITY, {"volatility": "0.021", "maximum": "0.02"}), id="volatility"),
        pytest.param({"daily_drawdown": D("0.79")}, {"governor_drawdown_share": D("0.8")}, None, id="below-the-day"),
        pytest.param({"daily_drawdown": D(1)}, {}, None, id="drawdown-is-no-limit"),
        pytest.param({"daily_drawdown": D("0.8")}, {"governor_drawdown_share": D("0.8")},
                     (DenyCode.VETO_DRAWDOWN, {"of": "day", "share_of_limit": "0.8", "maximum": "0.8"}), id="day"),
        pytest.param({"weekly_drawdown": D("0.8")}, {"governor_drawdown_share": D("0.8")},
                     (DenyCode.VETO_DRAWDOWN, {"of": "week", "share_of_limit": "0.8", "maximum": "0.8"}), id="week"),
        pytest.param({"companions": (ETH,)}, {"governor_max_companions": 1}, None, id="just-one-companion"),
        pytest.param({"companions": (ETH, SOL)}, {}, None, id="companions-are-no-limit"),
        pytest.param({"companions": (ETH, SOL)}, {"governor_max_companions": 1},
                     (DenyCode.VETO_CORRELATION, {"companions": f"{ETH}, {SOL}", "threshold": "0.7"}),
                     id="companions"),
        pytest.param({"companions": (ETH,)}, {"governor_max_companions": 0},
                     (DenyCode.VETO_CORRELATION, {"companions": ETH, "threshold": "0.7"}), id="none-beside-it"),
    ],
)  # fmt: skip
def test_each_veto_begins_beyond_its_limit(changes, policy, expected):
    """Just the limit passes, but for drawdown, which is vetoed from its share on."""
    assert told(governor_veto(replace(CALM, **changes), Policy(**policy))) == expected
    assert governor_veto(None, Policy(governor_max_companions=0)) is None


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (("2000", "500", "1"), None),
        (("2001", "1", "2001"), ("notional", "2001", "2000")),
        (("1", "501", "1"), ("risk", "501", "500.00")),
        (("NaN", "1", "1"), ("notional", "NaN", "2000")),
        (("1", "NaN", "1"), ("risk", "NaN", "500.00")),
        (("-Infinity", "1", "1"), ("notional", "-Infinity", "2000")),
    ],
)
def test_a_size_above_any_cap_is_vetoed(size, expected):
    """Just the caps pass; what is no number never does; without a view of risk nobody looks."""
    one = Size(quantity=D(1), notional=D(size[0]), risk=D(size[1]))
    found = size_veto(one, snapshot=make_snapshot(risk=RiskView()), policy=Policy())

    names = ("what", "value", "maximum")
    assert told(found) == (expected and (DenyCode.VETO_SIZE, dict(zip(names, expected, strict=True))))
    assert size_veto(one, snapshot=make_snapshot(risk=UNSET), policy=Policy()) is None


def test_a_size_above_the_whole_exposure_is_vetoed():
    """However large a position may be."""
    policy = Policy(max_exposure=D("0.1"))
    sizes = [Size(quantity=D(1), notional=D(value), risk=D(1)) for value in ("1000", "1000.5")]
    found = [told(size_veto(one, snapshot=make_snapshot(risk=RiskView()), policy=policy)) for one in sizes]

    assert found == [
        None, (DenyCode.VETO_SIZE, {"what": "exposure", "value": "1000.5", "maximum": "1000.0"})
    ]  # fmt: skip


# -- bias and committee ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("direction", "share", "refused"), [(LONG, 0.9, True), (SHORT, 0.9, False), (LONG, 0.7, False)]
)
def test_the_side_of_a_bias_is_refused_with_its_shares(direction, share, refused):
    """The other side is not, nor either while there is none."""
    bias = SignalBias(side=LONG, share=share, usual=0.55, limit=0.75, candles=20, window=20)
    found = bias_refusal(make_signal(BTC, direction=direction), make_snapshot(bias=bias))
    context = {"direction": "LONG", "share": "0.9", "limit": "0.75", "usual": "0.55", "candles": "20"}

    assert told(found) == ((DenyCode.SIGNALS_BIASED, context) if refused else None)
    assert bias_refusal(make_signal(BTC), make_snapshot(bias=UNSET)) is None


def resolved(**changes):
    vote = Vote(role=Role.AUDIT, policy="p", caps={}, vetoes={}, because=("no record", "no head"))
    other = Vote(role=Role.COMPLIANCE, policy="p", caps={}, vetoes={}, because=("not allowed",))
    plain = Resolution(
        stance=Stance.NORMAL, budget=D("0.5"), caps={BTC: D(1000)}, vetoes={}, votes=(vote, other), enforced=True
    )
    return make_snapshot(resolution=replace(plain, **changes))


def test_what_the_committee_vetoes_is_refused_with_its_words():
    """A symbol's own veto by itself, a stance by what each vote says."""
    every = "audit: no record; audit: no head; compliance: not allowed"

    assert committee_refusal(BTC, make_snapshot()) is None
    assert committee_refusal(BTC, resolved()) is None
    assert committee_refusal(BTC, resolved(stance=Stance.CAREFUL, vetoes={ETH: "x"})) is None
    assert told(committee_refusal(BTC, resolved(vetoes={BTC: "x"}))) == (
        DenyCode.COMMITTEE_VETO, {"stance": "NORMAL", "why": "x"}
    )  # fmt: skip
    assert told(committee_refusal(BTC, resolved(stance=Stance.EXITS_ONLY))) == (
        DenyCode.COMMITTEE_VETO, {"stance": "EXITS_ONLY", "why": every}
    )  # fmt: skip
    assert committee_refusal(BTC, resolved(stance=Stance.EXITS_ONLY, vetoes={BTC: "x"})).context["why"] == "x"


def test_a_budget_is_the_resolved_share_or_all():
    """Without a resolution nothing is taken away."""
    assert committee_budget(resolved()) == D("0.5")
    assert committee_budget(make_snapshot()) == 1


@pytest.mark.parametrize(
    ("carried", "notional", "refused"),
    [({}, "1000", None), ({}, "1000.5", "0"), ({"BTC": -400}, "600", None), ({"BTC": -400}, "601", "400"),
     ({"BTC": 400}, "601", "400"), ({"ETH": 900}, "1000", None)],
)  # fmt: skip
def test_a_symbol_may_come_to_just_its_cap(carried, notional, refused):
    """Whichever side it is carried on; other symbols are not meant."""
    size = Size(quantity=D(1), notional=D(notional), risk=D(1))
    found = committee_cap(BTC, size, snapshot=resolved(), load=load(**carried))
    context = {"carried": refused, "notional": notional, "cap": "1000"}

    assert told(found) == ((DenyCode.COMMITTEE_CAP, context) if refused else None)
    assert committee_cap(ETH, size, snapshot=resolved(), load=load(**carried)) is None
    assert committee_cap(BTC, size, snapshot=make_snapshot(), load=load(**carried)) is None
