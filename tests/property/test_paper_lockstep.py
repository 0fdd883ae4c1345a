"""A paper account fills as the venue that it watches: the same orders at the same prices."""

from __future__ import annotations

import tempfile
from decimal import Decimal
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from feature_store.venue.errors import OutcomeUnknownError, RequestRefusedError
from inference.domain.market import Instrument, Quote
from inference.domain.order import Fill, OrderIntent, OrderType, Purpose, Side
from inference.exchange.engine_account import EngineAccount, refusal
from inference.exchange.paper_desk import PaperDesk
from inference.exchange.paper_file import PaperFile
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.fees import Fees
from infra.sandbox.engine.instrument import instrument_for_price
from infra.sandbox.engine.model import Side as EngineSide
from infra.sandbox.engine.state import new_state

BTC = "BTC/USDT:USDT"
OURS = Instrument(
    symbol=BTC,
    price_tick=Decimal("0.1"),
    quantity_step=Decimal("0.001"),
    min_quantity=Decimal("0.001"),
    max_quantity=Decimal(100),
    min_notional=Decimal(50),
)
THEIRS = instrument_for_price("BTCUSDT", "BTC", 50_000.0)
BALANCE, FEES = Decimal(10_000), Fees()
START = Decimal(50_000)

_offsets = st.integers(-300, 300)
_order = st.tuples(
    st.sampled_from(list(OrderType)), st.sampled_from(list(Side)), st.booleans(), st.integers(1, 60), _offsets
)
_step = st.one_of(
    _offsets.map(lambda ticks: ("price", ticks)),
    _order.map(lambda order: ("order", order)),
    st.integers(0, 5).map(lambda back: ("cancel", back)),
    st.just(("restart", None)),
)


class Venue:
    """The venue's own engine, which shows its quotes to a paper account."""

    def __init__(self, folder: Path) -> None:
        self.engine = Exchange([THEIRS], new_state(BALANCE), fees=FEES)
        self.account = EngineAccount(self.engine, {BTC: "BTCUSDT"})
        self.file = PaperFile(folder / "paper.json", venue="binanceusdm", balance=BALANCE)
        self.told: list[object] = []
        self.open()
        self.now_ms, self.last = 1_700_000_000_000, START
        self.move(0)

    def open(self) -> None:
        """Begin a life of the paper account, from its file."""
        self.desk = PaperDesk(self.file, fees=FEES, tell=self.told.append)
        self.desk.know(OURS)

    def quote(self) -> Quote:
        """Return best bid and ask as the venue tells them."""
        best = self.engine.book.best
        return Quote(
            symbol=BTC,
            bid=best(THEIRS, self.last, EngineSide.SELL),
            ask=best(THEIRS, self.last, EngineSide.BUY),
            event_time_ms=self.now_ms,
        )

    def move(self, ticks: int) -> None:
        """Let the price change at the venue, and the paper account hear of it."""
        self.now_ms += 1_000
        self.last = max(Decimal(100), self.last + ticks * THEIRS.tick)
        self.show()

    def show(self) -> None:
        """Trade at the present price, where what rests and is passed by it fills, and let the paper account hear it."""
        self.engine.tick({"BTCUSDT": self.last}, now_ms=self.now_ms)
        self.engine.liquidate_if_needed(now_ms=self.now_ms)
        self.desk.hear_quote(self.quote(), now_ms=self.now_ms)

    def submit(self, intent: OrderIntent) -> tuple[str, str]:
        """Send one order to both and return what each answers."""
        self.show()
        try:
            theirs = str(self.account.place(intent, now_ms=self.now_ms))
        except VenueError as error:
            theirs = repr(refusal(error))
        try:
            place = self.desk.account.place
            ours = str(self.desk.act(lambda: place(intent, now_ms=self.now_ms), now_ms=self.now_ms))
        except (RequestRefusedError, OutcomeUnknownError) as error:
            ours = repr(error)
        return theirs, ours

    def both_fills(self) -> tuple[list[Fill], list[Fill]]:
        """Return all executions, at the venue and on paper."""
        return self.account.fills(BTC, 0), self.desk.account.fills(BTC, 0)


def intent_of(number: int, order: tuple[OrderType, Side, bool, int, int], last: Decimal) -> OrderIntent:
    """Return an order near the last price."""
    kind, side, enters, lots, offset = order
    price = last + offset * THEIRS.tick
    return OrderIntent(
        client_order_id=f"qt-{number}",
        trade_id="t",
        trace_id="",
        symbol=BTC,
        side=side,
        order_type=kind,
        purpose=Purpose.ENTRY if enters and kind in (OrderType.MARKET, OrderType.LIMIT) else Purpose.EXIT,
        quantity=lots * THEIRS.step,
        limit_price=price if kind is OrderType.LIMIT else None,
        trigger_price=price if kind in (OrderType.STOP_MARKET, OrderType.TAKE_PROFIT_MARKET) else None,
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(_step, min_size=1, max_size=40))
@example([("order", (OrderType.LIMIT, Side.BUY, True, 1, 1)), ("order", (OrderType.MARKET, Side.SELL, False, 1, 0))])
def test_paper_account_fills_as_the_venue_that_it_watches(steps):
    """Whatever is ordered, cancelled and restarted, answers, fills, positions, orders and wallet are the venue's."""
    with tempfile.TemporaryDirectory() as folder:
        venue, sent = Venue(Path(folder)), []
        for number, (what, detail) in enumerate(steps):
            if what == "price":
                venue.move(detail)
            elif what == "order":
                intent = intent_of(number, detail, venue.last)
                sent.append(intent)
                theirs, ours = venue.submit(intent)
                assert ours == theirs
            elif what == "cancel" and sent:
                intent = sent[-1 - detail % len(sent)]
                theirs = venue.account.cancel(intent, now_ms=venue.now_ms)
                ours = venue.desk.act(
                    lambda intent=intent: venue.desk.account.cancel(intent, now_ms=venue.now_ms), now_ms=venue.now_ms
                )
                assert ours == theirs
            elif what == "restart":
                venue.open()
                venue.show()

        theirs, ours = venue.both_fills()
        assert ours == theirs
        assert venue.desk.account.positions() == venue.account.positions()
        assert venue.desk.account.open_orders() == venue.account.open_orders()
        assert venue.desk.exchange.state.wallet == venue.engine.state.wallet
        assert [one for one in venue.told if isinstance(one, Fill)] == [
            one for one in venue.account.told(venue.engine.drain()) if isinstance(one, Fill)
        ]
        assert venue.file.load().engine.wallet == venue.engine.state.wallet
