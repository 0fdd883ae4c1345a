"""What risk does in states that are rare: numbers that do not divide, clocks set back, journals that say odd things."""

from __future__ import annotations

from decimal import Decimal

import pytest

from inference.domain.decision import DenyCode, RecentTrades
from inference.domain.events import Noted, TradeClosed
from inference.domain.policy import Policy
from inference.domain.position import Account
from inference.domain.risk import BreakerState
from inference.portfolio.exposure import portfolio_load
from inference.risk.breaker import OPENED, Breaker, after
from inference.risk.constraints import EntryCounts, constraint_refusal, symbol_refusal
from inference.risk.emergency import Bases, evaluate
from tests.property.test_breaker_rules import result
from tests.property.test_emergency_rules import inputs
from tests.worker_values import T0, make_snapshot

BTC = "BTC/USDT:USDT"


@pytest.mark.parametrize("pnl", [1, -1])
def test_an_open_breaker_is_decided_by_no_try(pnl):
    """A journal says that it opened while a trade was tried: the trade's end closes nothing and opens nothing anew."""
    tried = Breaker(state=BreakerState.HALF_OPEN, until_ms=T0, tried="try")
    opened = after(tried, Noted(event_type=OPENED, detail={"reason": "r", "until_ms": str(T0 + 99)}), T0 - 1, Policy())
    found = after(opened, TradeClosed(trade_id="try", result=result(pnl)), T0, Policy())

    assert (found.state, found.reason, found.until_ms) == (BreakerState.OPEN, "r", T0 + 99)


@pytest.mark.parametrize(
    ("begun", "equity", "stops"),
    [
        # Divided it fell by a little less than 15 %, multiplied it has reached it; and the other way round.
        ("307106.4615384615384615384615", "261040.4923076923076923076923", True),
        ("1130.409415974381931490344921", "960.8480035782246417667931829", True),
        ("1130.409415974381931490344921", "960.8480035782246417667931830", False),
    ],
)
def test_a_fall_of_just_the_wall_stops_in_either_arithmetic(begun, equity, stops):
    """Of numbers of 28 digits the last one may be lost on the way; none of it is lost for the wall."""
    base, held = Decimal(begun), Decimal(equity)
    account = Account(equity=held, day_start_equity=base, peak_equity=held, week_start_equity=held)
    verdict = evaluate(inputs(account=account, bases=Bases(day=base, week=held, peak=held)), Policy())

    assert bool(verdict.trips) is stops


def test_a_loss_that_lies_ahead_holds_nobody_back_where_losses_do_not_count():
    """A clock that was set back finds a loss of later; without a pause after losses nothing is made of it."""
    snapshot = make_snapshot(recent=RecentTrades(lost_ms={BTC: T0 + 5}))
    load = portfolio_load(positions={}, in_flight={}, heat={})

    def asked(policy):
        return constraint_refusal(
            BTC, snapshot=snapshot, load=load, policy=policy, now_ms=T0, counts=EntryCounts.of(snapshot, policy, T0)
        )

    assert asked(Policy()) is None
    assert asked(Policy(loss_cooldown_seconds=1)).code is DenyCode.LOSS_COOLDOWN


@pytest.mark.parametrize("asset", ["BTC", "ETH", "SOL", "XRP", "ADA", "DOT", "LTC", "UNI"])
def test_what_denies_is_told_in_order(asset):
    """The asset and the symbol, as they are sorted, whatever they are called."""
    symbol = f"{asset}/USDT:USDT"
    refusal = symbol_refusal(symbol, Policy(denied_symbols=(symbol, asset)))

    assert refusal is not None
    assert refusal.context["denied"] == f"{asset},{symbol}"


def test_an_asset_ends_where_its_first_stroke_begins():
    """What follows it may hold another."""
    assert symbol_refusal("BTC/USDT/X", Policy(denied_symbols=("BTC",))) is not None
    assert symbol_refusal("BTC/USDT/X", Policy(denied_symbols=("BTC/USDT",))) is None
