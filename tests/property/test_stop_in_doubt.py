"""The next step of a trade whose sendings are lost, executed late or not answered for, in any order of events."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from inference.domain.events import (
    Event,
    ExitRequested,
    OrderFoundAbsent,
    OrderIntended,
    OrderRefused,
    OrderReported,
    TradeClosed,
    TradePlanned,
)
from inference.domain.order import OrderIntent, OrderReport, OrderStatus, Purpose
from inference.domain.policy import EntryStyle
from inference.execution.book import Book, Trade
from inference.execution.next_step import MAX_IN_DOUBT, Cancel, Finish, Leave, Place, Resolve, next_step
from inference.execution.planning import trade_plan
from inference.execution.result import trade_result
from tests.worker_values import make_approved

QUANTITY = Decimal("0.04")
# In steps: how long a request may still execute, when a late one does, how long a position may do without a stop.
WINDOW, LATE, OVERDUE = 4, 2, 6
MOST_STEPS = 200

# "taken" is answered; "lost" never arrives; the others execute, at once or later, and are not answered; "full" is
# refused for what rests already.
SENDINGS = st.sampled_from(["taken", "lost", "unheard", "late", "full"])
QUESTIONS = st.sampled_from(["answered", "silent"])


class Market:
    """A venue of one position and the orders that rest beside it; every order but the entry only reduces."""

    def __init__(self) -> None:
        self.position = Decimal(0)
        self.resting: dict[str, OrderIntent] = {}
        self.ended: dict[str, tuple[OrderStatus, Decimal]] = {}
        self.entered = Decimal(0)

    def take(self, intent: OrderIntent) -> str:
        """Execute one order; return the venue's code where it refuses."""
        key = intent.client_order_id
        if key in self.resting:
            return "-4116"
        if intent.purpose is Purpose.ENTRY:
            self.position += intent.quantity
            self.entered += intent.quantity
            self.ended[key] = OrderStatus.FILLED, intent.quantity
        elif self.position == 0:
            return "-2022"
        elif intent.is_conditional:
            self.resting[key] = intent
        else:
            self._reduce(intent)
        return ""

    def fire(self) -> str | None:
        """Let the first stop that rests close what it can; return its id."""
        stop = next((one for one in self.resting.values() if one.purpose is Purpose.STOP), None)
        if stop is None or self.position == 0:
            return None
        del self.resting[stop.client_order_id]
        self._reduce(stop)
        return stop.client_order_id

    def cancel(self, key: str) -> None:
        """Take a resting order away."""
        if self.resting.pop(key, None):
            self.ended[key] = OrderStatus.CANCELED, Decimal(0)

    def report(self, key: str) -> OrderReport | None:
        """Return what is known of an order here."""
        if key in self.resting:
            status, filled = OrderStatus.ACCEPTED, Decimal(0)
        elif key in self.ended:
            status, filled = self.ended[key]
        else:
            return None
        price = Decimal(50_000) if filled else None
        return OrderReport(
            client_order_id=key, venue_order_id=f"v-{key}", symbol="BTC/USDT:USDT", status=status, filled=filled,
            average_price=price, event_time_ms=0,
        )  # fmt: skip

    def _reduce(self, intent: OrderIntent) -> None:
        filled = min(intent.quantity, self.position)
        self.position -= filled
        status = OrderStatus.FILLED if filled == intent.quantity else OrderStatus.EXPIRED
        self.ended[intent.client_order_id] = status, filled


class Life:
    """A trade carried out by `next_step` alone at that venue, each step of it journaled."""

    def __init__(
        self, sendings: list[str], questions: list[str], *, dies_at: int, fires_at: int, may_double: bool = True
    ) -> None:
        self.may_double = may_double
        self.sendings, self.questions = list(sendings), list(questions)
        self.dies_at, self.fires_at = dies_at, fires_at
        self.market = Market()
        self.events: list[Event] = []
        self.book = Book()
        self.now = self.bare = 0
        self.sent_at: dict[str, int] = {}
        self.late: list[tuple[int, OrderIntent]] = []
        plan = trade_plan(
            make_approved(), candle_close_ms=0, now_ms=0, style=EntryStyle.MARKET, patience_ms=0, arrival_price=None
        )
        self.key = plan.trade_id
        self.note(TradePlanned(plan=plan))

    @property
    def trade(self) -> Trade:
        """The trade as it is believed to be."""
        return self.book.trades[self.key]

    def note(self, event: Event) -> None:
        """Journal, then apply."""
        self.events.append(event)
        self.book.apply(event)

    def go_on(self) -> bool:
        """Take one step; return whether there was one."""
        self.now += 1
        assert self.now < MOST_STEPS, "does not come to rest"
        for _, intent in [one for one in self.late if one[0] <= self.now]:
            self.market.take(intent)
        self.late = [one for one in self.late if one[0] > self.now]
        if self.now == self.fires_at and (key := self.market.fire()) and self.book.order(key):
            self.tell(key)
        if self.now == self.dies_at:
            # The next process knows what was journaled, and when it began.
            self.book = Book.rebuilt(self.events)
            self.sent_at = dict.fromkeys(self.sent_at, self.now)
            self.bare = 0
        trade = self.trade
        self.bare = self.bare + 1 if self.is_bare(trade) else 0
        wanted, overdue = self.now < self.dies_at, self.bare > OVERDUE
        step = next_step(trade, may_enter=wanted, stop_overdue=overdue, may_double=self.may_double)
        self.check(trade, step)
        match step:
            case Place(intent=intent):
                self.send(intent)
            case Resolve(order=order):
                self.ask(order.intent.client_order_id)
            case Cancel(order=order):
                self.market.cancel(order.intent.client_order_id)
                self.tell(order.intent.client_order_id)
            case Leave(reason=reason):
                self.note(ExitRequested(trade_id=self.key, reason=reason))
            case Finish():
                result = trade_result(trade, closed_at_ms=0, taker_fee=Decimal(0))
                self.note(TradeClosed(trade_id=self.key, result=result))
        return step is not None

    def is_bare(self, trade: Trade) -> bool:
        """Whether nothing is known to protect what is known to be open."""
        covered = sum(one.remaining for one in trade.of(Purpose.STOP) if one.is_live)
        return trade.open_quantity > covered

    def check(self, trade: Trade, step: object) -> None:
        """While bare, something is sent or left each time, but for the orders that fill all room for doubt."""
        if not self.is_bare(trade):
            return
        purpose = Purpose.EXIT if trade.exit_reason else Purpose.STOP
        orders = trade.of(purpose)
        in_doubt = sum(one.may_exist for one in orders)
        is_told = bool(in_doubt) and orders[-1].refusal in ("-4118", "-2022")
        if isinstance(step, Resolve):
            assert in_doubt == (MAX_IN_DOUBT if self.may_double else 1) or is_told or step.order.is_live
        else:
            assert isinstance(step, Leave) or (isinstance(step, Place) and step.intent.purpose is purpose)

    def send(self, intent: OrderIntent) -> None:
        """Journal an order, and let the next word be what becomes of it."""
        in_doubt = [one for one in self.trade.of(intent.purpose) if one.may_exist]
        assert len(in_doubt) < (MAX_IN_DOUBT if self.may_double else 1)
        assert intent.client_order_id not in {one.intent.client_order_id for one in in_doubt}
        if intent.purpose in (Purpose.ENTRY, Purpose.TARGET):
            assert not in_doubt, "only what reduces and protects is doubled"
        key = intent.client_order_id
        self.note(OrderIntended(intent=intent))
        self.sent_at[key] = self.now
        word = self.sendings.pop(0) if self.sendings else "taken"
        if word == "late":
            self.late.append((self.now + LATE, intent))
        if word == "full" and intent.is_conditional and self.market.resting:
            self.note(OrderRefused(client_order_id=key, code="-4118", message=""))
        elif word in ("taken", "unheard", "full"):
            code = self.market.take(intent)
            if word == "taken" and code in ("", "-2022"):
                self.tell(key, code)

    def ask(self, key: str) -> None:
        """Ask for one order: what is not there is absent once it can no longer come."""
        word = self.questions.pop(0) if self.questions else "answered"
        if word == "silent":
            return
        if self.market.report(key):
            self.tell(key)
        elif self.now - self.sent_at[key] > WINDOW:
            self.note(OrderFoundAbsent(client_order_id=key))

    def tell(self, key: str, code: str = "") -> None:
        """Take in what the venue says of an order."""
        report = self.market.report(key)
        if code:
            self.note(OrderRefused(client_order_id=key, code=code, message=""))
        elif report is not None:
            self.note(OrderReported(report=report))


@settings(max_examples=600, deadline=None)
@given(
    st.lists(SENDINGS, max_size=14),
    st.lists(QUESTIONS, max_size=14),
    st.integers(1, 40),
    st.integers(1, 40),
    st.booleans(),
)
def test_no_order_of_events_leaves_a_trade_bare_doubled_or_with_a_stop_too_many(
    sendings, questions, dies_at, fires_at, may_double
):
    """However answers are lost, and wherever the process dies: it ends with one stop for all that is open, or flat."""
    life = Life(sendings, questions, dies_at=dies_at, fires_at=fires_at, may_double=may_double)
    while life.go_on() or life.now <= max(dies_at, fires_at) or life.late:
        assert life.market.entered <= QUANTITY, "an entry was executed twice"
        assert life.market.position >= 0, "an exit turned the position over"

    market, trade = life.market, life.trade
    assert not any(order.may_exist for order in trade.orders.values())
    assert trade.open_quantity == market.position
    stops = [one.quantity for one in market.resting.values() if one.purpose is Purpose.STOP]
    assert stops == ([market.position] if market.position else [])
    assert len(market.resting) <= (2 if market.position else 0)
    assert trade.entered == market.entered
    assert Book.rebuilt(life.events).trades == life.book.trades


@settings(max_examples=300, deadline=None)
@given(st.lists(SENDINGS, max_size=14), st.lists(QUESTIONS, max_size=14), st.integers(1, 40))
def test_a_restart_at_any_step_takes_the_same_step(sendings, questions, dies_at):
    """What comes next follows from the journal alone: a rebuilt book calls for it too."""
    life = Life(sendings, questions, dies_at=dies_at, fires_at=0)
    while life.go_on():
        again = Book.rebuilt(life.events).trades[life.key]
        for overdue in (False, True):
            assert next_step(again, stop_overdue=overdue) == next_step(life.trade, stop_overdue=overdue)
