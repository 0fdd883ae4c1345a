"""A process that trades a paper account until it is killed: it says of each order when it is sent and when done."""

from __future__ import annotations

import sys
from decimal import Decimal
from itertools import count
from pathlib import Path

from inference.domain.market import Instrument, Quote
from inference.domain.order import OrderIntent, OrderType, Purpose, Side
from inference.exchange.paper_desk import PaperDesk
from inference.exchange.paper_file import PaperFile
from infra.sandbox.engine.fees import Fees

SYMBOL = "BTC/USDT:USDT"
BALANCE = Decimal(1_000_000)
_T0 = 1_750_000_200_000
_INSTRUMENT = Instrument(
    symbol=SYMBOL,
    price_tick=Decimal("0.1"),
    quantity_step=Decimal("0.001"),
    min_quantity=Decimal("0.001"),
    max_quantity=Decimal(1000),
    min_notional=Decimal(5),
)


def paper_file(folder: Path) -> PaperFile:
    """Return where the account is kept."""
    return PaperFile(folder / "paper.json", venue="binanceusdm", balance=BALANCE)


def order(number: int) -> OrderIntent:
    """Return the order of a number: one buys, the next one sells."""
    return OrderIntent(
        client_order_id=f"qt-{number}",
        trade_id="t",
        trace_id="",
        symbol=SYMBOL,
        side=Side.SELL if number % 2 else Side.BUY,
        order_type=OrderType.MARKET,
        purpose=Purpose.ENTRY,
        quantity=Decimal("0.001"),
    )


def _say(what: str, number: int) -> None:
    sys.stdout.write(f"{what} {number}\n")
    sys.stdout.flush()


def trade(folder: Path, first: int) -> None:
    """Send the order of that number unless it is there already, then the next, for ever."""
    desk = PaperDesk(paper_file(folder), fees=Fees(), tell=lambda _: None)
    desk.know(_INSTRUMENT)
    desk.hear_quote(Quote(symbol=SYMBOL, bid=Decimal(49_999), ask=Decimal(50_001), event_time_ms=_T0), now_ms=_T0)
    for number in count(first):
        intent, now_ms = order(number), _T0 + number
        if desk.account.find(intent) is None:
            _say("sent", number)
            desk.act(lambda intent=intent, now_ms=now_ms: desk.account.place(intent, now_ms=now_ms), now_ms=now_ms)
        _say("done", number)


if __name__ == "__main__":
    trade(Path(sys.argv[1]), int(sys.argv[2]))
