"""What a decision is told of risk, and what a worker remembers of it after a restart."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from inference.bootstrap.past import ACCOUNT_BEGUN, Past
from inference.domain.decision import TradingState
from inference.domain.errors import JournalError
from inference.domain.events import AccountMarked, Event, Noted, OrderRefused, TradeClosed
from inference.domain.policy import Policy
from inference.domain.risk import BreakerState
from inference.domain.signal import Direction
from inference.domain.trade import ExitReason, TradeResult
from inference.execution.book import Book
from inference.execution.heard import HeardJournal
from inference.journal.codec import chained
from inference.risk.errors import ErrorCounts
from inference.supervision.account_marks import marked
from inference.supervision.emergency_record import RESET, STOPPED
from inference.supervision.risk_watch import RiskWatch
from inference.supervision.standing import Standing
from tests.worker_support import MemoryJournal
from tests.worker_values import T0

STEP = 300_000
BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
REFUSED = OrderRefused(client_order_id="a", code="-4131", message="")


def lost(number: int) -> TradeClosed:
    result = TradeResult(
        symbol=BTC, direction=Direction.LONG, reason=ExitReason.STOP, quantity=Decimal(1), entry_price=Decimal(1),
        exit_price=Decimal(1), pnl=Decimal(-1), fees=Decimal(0), opened_at_ms=0, closed_at_ms=0, fills_complete=True,
    )  # fmt: skip
    return TradeClosed(trade_id=f"t{number}", result=result)


class Watched:
    """A watch with its candles, its policy, its clock and its notes in reach."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self.seconds = 0.0
        self.asked = 0
        self.noted: list[tuple[str, dict[str, str]]] = []
        self.watch = RiskWatch(
            policy=lambda: self.policy, timeframe_ms=STEP, closes=self._closes,
            note=lambda kind, detail: self.noted.append((kind, dict(detail))), monotonic=lambda: self.seconds,
        )  # fmt: skip

    def _closes(self):
        self.asked += 1
        rng = np.random.default_rng(1)
        times = T0 - 2 * STEP - STEP * np.arange(300)[::-1]
        common = np.exp(np.cumsum(rng.normal(0, 0.001, 300)))
        return {BTC: (times, 50_000 * common), ETH: (times, 3_000 * common)}


def test_correlations_are_computed_once_a_candle():
    """Asked for before the candle closes and twice at it, the candles are read once; the view names one cluster."""
    watched = Watched(Policy(max_btc_beta=Decimal("1.5")))
    watched.watch.prepare(T0)
    view = watched.watch.view(T0, T0 + 1)
    watched.watch.view(T0, T0 + 2)

    assert watched.asked == 1
    assert view.clusters == {BTC: BTC, ETH: BTC}
    assert view.betas == {BTC: 1.0, ETH: 1.0}
    watched.watch.view(T0 + STEP, T0 + STEP)
    assert watched.asked == 2


def test_without_a_limit_that_reads_them_nothing_is_correlated():
    """A policy that limits neither clusters nor beta costs no journal and no time."""
    watched = Watched(Policy())

    assert watched.watch.view(T0, T0).clusters == {}
    assert watched.asked == 0


def test_the_view_says_who_stops_and_whose_input_is_missing():
    """What the emergency stop says is asked at each view."""
    watched = Watched()
    watched.watch.emergency = lambda: "MANUAL: drill"
    watched.watch.withheld = lambda: "DATA_FEED"
    view = watched.watch.view(T0, T0)

    assert (view.emergency, view.missing, view.breaker) == ("MANUAL: drill", "DATA_FEED", None)


def test_the_breaker_tells_when_it_opens_and_lets_go():
    """Opening, trying and closing are journaled with reason and end."""
    watched = Watched(Policy(breaker_losses=2, breaker_pause_seconds=60))
    for number in range(2):
        watched.watch.hear(lost(number), T0)
    opened = watched.watch.view(T0, T0 + 59_999).breaker
    half = watched.watch.view(T0, T0 + 60_000).breaker
    closed = watched.watch.view(T0, T0 + 120_000).breaker

    assert opened is not None
    assert half is not None
    assert (opened.state, half.state, closed) == (BreakerState.OPEN, BreakerState.HALF_OPEN, None)
    assert [kind for kind, _ in watched.noted] == [
        "risk.breaker_opened", "risk.breaker_half_opened", "risk.breaker_closed",
    ]  # fmt: skip
    assert watched.noted[0][1] == {
        "reason": "2 losses in a row, the limit is 2", "until_ms": str(T0 + 60_000)
    }  # fmt: skip


def test_a_drawdown_is_told_once_a_day():
    """At 2 % a day is warned of, at 3 % held back by, each once until midnight."""
    watched = Watched()
    day = AccountMarked(equity=Decimal(97), day_start_equity=Decimal(100), peak_equity=Decimal(100))
    for at_ms in (T0, T0 + 1, T0 + 86_400_000):
        watched.watch.hear(replace(day, equity=Decimal(98)), at_ms)
        watched.watch.hear(day, at_ms)

    told = [detail["limit"] for kind, detail in watched.noted if kind == "risk.limit_exceeded"]
    assert told == ["warn_daily_drawdown", "max_daily_drawdown"] * 2


def test_refusals_are_counted_and_forgotten():
    """Six in a row are six until a person resets."""
    watched = Watched()
    for _ in range(6):
        watched.watch.hear(REFUSED, T0)

    assert watched.watch.errors().in_row == 6
    watched.watch.forget_errors()
    assert watched.watch.errors() == ErrorCounts()


def test_what_cannot_be_recorded_is_heard_all_the_same():
    """A full disk hides no refusal from who counts them."""
    journal, heard = MemoryJournal(fail=JournalError("full")), []
    listening = HeardJournal(journal, lambda event, at_ms: heard.append((event, at_ms)))

    with pytest.raises(JournalError):
        listening.record(REFUSED, timestamp_ms=T0)
    assert heard == [(REFUSED, T0)]


def read(*events: tuple[Event, int]) -> Past:
    past = Past(Book())
    for number, (event, at_ms) in enumerate(events):
        past.visit(chained(event, seq=number + 1, timestamp_ms=at_ms, trace_id="", previous=""))
    return past


def mark(equity: int) -> AccountMarked:
    return AccountMarked(
        equity=Decimal(equity), day_start_equity=Decimal(equity), peak_equity=Decimal(equity),
        week_start_equity=Decimal(equity),
    )  # fmt: skip


def started(venue: str = "sandbox", mode: str = "sandbox") -> Noted:
    return Noted(event_type="health.started", detail={"venue": venue, "mode": mode})


def test_another_account_is_not_measured_from_a_reset_of_this_one():
    """A home that goes from paper to live forgets what equity a person accepted there; a restart does not."""
    reset = Noted(event_type=RESET, detail={"stops": "1-a", "reason": "looked", "equity": "8000"})
    first = (started(mode="paper"), T0), (mark(10_000), T0), (reset, T0 + 1)
    same = read(*first, (started(mode="paper"), T0 + 2)).emergency
    live = read(*first, (started("binanceusdm", "live"), T0 + 2)).emergency

    assert (same.reset_ms, same.reset_equity) == (T0 + 1, Decimal(8000))
    assert (live.reset_ms, live.reset_equity) == (None, None)


def test_a_journal_gives_back_breaker_and_stop():
    """What was open and what was latched when the worker was killed is so again."""
    policy = Policy(breaker_losses=2)
    stop = Noted(event_type=STOPPED, detail={"key": "1-a", "evaluator": "MANUAL", "reason": "x"})
    past = read((started(), T0), (mark(1000), T0), (lost(1), T0 + 1), (lost(2), T0 + 2), (stop, T0 + 3))

    assert past.breaker(policy).state is BreakerState.OPEN
    assert past.breaker(Policy()).state is BreakerState.CLOSED
    assert list(past.emergency.standing) == ["1-a"]
    assert past.mark == mark(1000)


@pytest.mark.parametrize(
    ("again", "at_ms"),
    [
        pytest.param(started("binanceusdm", "live"), T0 + 5, id="place"),
        pytest.param(started(), T0 - 40_000_000, id="time"),
        pytest.param(Noted(event_type=ACCOUNT_BEGUN, detail={"file": "x"}), T0 + 5, id="paper-account-begun"),
    ],
)
def test_another_account_has_not_fallen_from_this_ones_peak(again, at_ms):
    """Another venue, mode, time or paper account begins with marks of its own; a stop stays."""
    stop = Noted(event_type=STOPPED, detail={"key": "1-a", "evaluator": "MANUAL", "reason": "x"})
    past = read((started(), T0), (mark(1_000_000), T0), (stop, T0 + 1), (again, at_ms))

    assert past.mark is None
    assert list(past.emergency.standing) == ["1-a"]


def test_an_emergency_objection_is_released_and_others_are_not():
    """Only who owns a HALTED objection takes it back."""
    standing = Standing()
    standing.object("emergency", TradingState.HALTED, "drill")
    standing.object("halted", TradingState.HALTED, "a defect")

    assert standing.release("emergency")
    assert not standing.release("emergency")
    assert not standing.lift("halted")
    assert standing.trading_state is TradingState.HALTED
    assert standing.objections == {"halted": (TradingState.HALTED, "a defect")}


def test_views_of_before_have_no_week():
    """An account that was marked before weeks were counted keeps its day's start as the week's."""
    earlier = replace(mark(100), week_start_equity=mark(1).week_start_equity)
    old = AccountMarked(equity=Decimal(100), day_start_equity=Decimal(110), peak_equity=Decimal(120))

    assert marked(old, T0, equity=Decimal(90), now_ms=T0 + 1).week_start_equity == Decimal(110)
    assert marked(earlier, T0, equity=Decimal(90), now_ms=T0 + 1).week_start_equity == Decimal(1)
