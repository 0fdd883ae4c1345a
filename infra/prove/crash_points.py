"""`kill -9` at every point of the order path at which anything outside can have changed: each of them, not a sample."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from feature_store.clock import monotonic
from inference.domain.events import TradeClosed
from inference.domain.order import OrderStatus, OrderType, Purpose
from inference.domain.policy import EntryStyle
from inference.domain.signal import Direction
from inference.domain.trade import ExitReason
from inference.execution.book import Book, Trade
from infra.prove.desk import Desk, open_desk
from infra.prove.proof import Proof, Size
from infra.prove.record import events_in
from infra.prove.servers import Servers
from infra.prove.stage import ProofError, Stage, get, post

BOUND_S = 6.0
"""How long a position may be without a stop, the restart within it: five seconds for a stop, and one to leave."""
_POINTS_AT_MOST, _ENDS_AT_MOST = 400, 10
_QUIET_S = 60.0
_ORDER, _ALGO, _COUNTDOWN = "/fapi/v1/order", "/fapi/v1/algoOrder", "/fapi/v1/countdownCancelAll"
_SYMBOL = "BTC/USDT:USDT"

Story = Callable[[Desk, str, str], Awaitable[None]]


async def _whole(desk: Desk, _url: str, name: str) -> None:
    """Enter, be protected, leave by time."""
    await _trade(desk, name, Direction.LONG, Decimal(1_000))


async def _part(desk: Desk, url: str, name: str) -> None:
    """Enter and find half of it: that is protected and left, and of the way out only half is found at first too."""
    await asyncio.to_thread(post, f"{url}/sandbox/ctl", {"op": "partial", "frac": 0.5, "times": 2})
    await _trade(desk, name, Direction.SHORT, Decimal(2_000))


async def _unanswered(desk: Desk, url: str, name: str) -> None:
    """Enter and leave while sendings are executed and not answered."""
    for path in (_ORDER, _ALGO):
        fault = {"op": "fault", "method": "POST", "path": path, "action": "exec_then_drop", "times": 1}
        await asyncio.to_thread(post, f"{url}/sandbox/ctl", fault)
    await _trade(desk, name, Direction.LONG, Decimal(1_000))


async def _doubted(desk: Desk, url: str, name: str) -> None:
    """Enter while a stop is executed, not answered and not told of: another one is sent, and one is taken away."""
    for fault in (
        {"op": "wsfault", "drop_user": True},
        {"op": "fault", "method": "POST", "path": _ALGO, "action": "exec_then_drop", "times": 1},
        {"op": "fault", "method": "POST", "path": _ALGO, "action": "drop", "times": 1},
        {"op": "fault", "method": "GET", "path": _ALGO, "action": "status", "status": 503, "code": -1000, "times": 3},
    ):
        await asyncio.to_thread(post, f"{url}/sandbox/ctl", fault)
    await _trade(desk, name, Direction.SHORT, Decimal(1_000))


async def _resting(desk: Desk, _url: str, name: str) -> None:
    """Let an entry rest with the switch armed, take it away in time, take the rest at market, leave."""
    approval = await desk.approval(
        _SYMBOL, notional=Decimal(1_000), distance=Decimal("0.05"), trace_id=name, direction=Direction.LONG
    )
    await desk.executor.enter(approval, candle_close_ms=desk.now_ms())
    while not desk.executor.book.positions() and desk.executor.book.active_in(_SYMBOL):
        await desk.executor.settle(_SYMBOL)
        await asyncio.sleep(0.1)
    await desk.executor.request_exit(_SYMBOL, ExitReason.TIME_BARRIER)


STORIES: dict[str, Story] = {
    "whole": _whole,
    "part": _part,
    "unanswered": _unanswered,
    "doubted": _doubted,
    "resting": _resting,
}


@dataclass(frozen=True, slots=True)
class Told:
    """What a story came to in which nobody was killed: its trade, and what the venue met of each request."""

    trade: Trade
    met: dict[str, list[int]]

    def requests(self, what: str) -> int:
        """Return how many requests of this method and path the venue saw."""
        return self.met.get(what, [0, 0])[0]

    def failed(self, what: str) -> int:
        """Return how many of them a fault made fail."""
        return self.met.get(what, [0, 0])[1]

    @property
    def is_whole(self) -> bool:
        """Whether all that was planned was entered, by one order, and left by another."""
        (entry, *more), exits = self.trade.of(Purpose.ENTRY), self.trade.of(Purpose.EXIT)
        return not more and entry.executed == self.trade.plan.quantity and len(exits) == 1 and self.is_left

    @property
    def is_left(self) -> bool:
        """Whether the trade was protected, and what was entered was left again at market."""
        out = sum((order.executed for order in self.trade.of(Purpose.EXIT)), Decimal(0))
        stops = [order for order in self.trade.of(Purpose.STOP) if order.venue_order_id]
        return bool(stops) and self.trade.entered == out > 0


def _was_part(told: Told) -> bool:
    entries, exits = told.trade.of(Purpose.ENTRY), told.trade.of(Purpose.EXIT)
    is_entry_in_part = len(entries) == 1 and 0 < told.trade.entered < told.trade.plan.quantity
    is_exit_in_part = len(exits) == 2 and 0 < exits[0].executed < exits[0].intent.quantity
    return is_entry_in_part and is_exit_in_part and told.is_left


def _was_doubted(told: Told) -> bool:
    stops = told.trade.of(Purpose.STOP)
    both = [order for order in stops if order.venue_order_id and order.status is OrderStatus.CANCELED]
    return told.is_whole and told.failed(f"POST {_ALGO}") == 2 and len(both) > 1


def _was_resting(told: Told) -> bool:
    entries = told.trade.of(Purpose.ENTRY)
    types = [order.intent.order_type for order in entries]
    is_taken_away = entries[0].status is OrderStatus.CANCELED and entries[0].remaining > 0
    is_armed = told.requests(f"POST {_COUNTDOWN}") > 0
    return types == [OrderType.LIMIT, OrderType.MARKET] and is_taken_away and is_armed and told.is_left


# What each story stands for: where its run to the end was not that, the kills in it proved something else.
STANDS_FOR: dict[str, Callable[[Told], bool]] = {
    "whole": lambda told: told.is_whole,
    "part": _was_part,
    "unanswered": lambda told: told.is_whole and told.failed(f"POST {_ORDER}") == told.failed(f"POST {_ALGO}") == 1,
    "doubted": _was_doubted,
    "resting": _was_resting,
}
# How entries are worked in a story, where it is not at market.
STYLES = {"resting": EntryStyle.LIMIT}
RUN = {Size.FULL: tuple(STORIES), Size.CI: ("whole",)}


def prove(size: Size) -> Proof:
    """Run each story again and again, killed one point later each time, until it is not killed any more."""
    killed: Counter[str] = Counter()
    places: Counter[str] = Counter()
    wrong: list[str] = []
    longest_s = 0.0
    with Stage("crash-points") as stage, Servers(stage) as servers:
        url = servers.sandbox(symbols=3, speed=1, balance=10_000_000_000, start="2026-01-05T01:00:00Z")
        for name in RUN[size]:
            ended = 0
            for point in range(1, _POINTS_AT_MOST):
                folder = stage.home / name / str(point)
                folder.mkdir(parents=True)
                wallet = Decimal(get(f"{url}/sandbox/audit")["wallet"])
                at = _die(name, url, folder, point)
                met = post(f"{url}/sandbox/ctl", {"op": "log"})["met"]
                post(f"{url}/sandbox/ctl", {"op": "clear"})
                unlike = [] if at else _not_what_it_stands_for(name, folder, met)
                wrong += [
                    f"{name}, killed {at or 'never'}: {one}" for one in asyncio.run(_come_back(url, folder, wallet))
                ]
                if at is not None:
                    killed[name] += 1
                    places[at] += 1
                    continue
                ended += 1
                # The market may end a story early, or fill what was to rest: that one was another story, and shorter.
                if not unlike or ended == _ENDS_AT_MOST:
                    wrong += unlike
                    break
            else:
                raise ProofError(f"Story {name} did not end within {_POINTS_AT_MOST} points")
        audit = get(f"{url}/sandbox/audit")
        longest_s = audit["unprotected"]["max_wall_ms"] / 1000
    duplicates = audit["duplicate_client_ids"]
    return Proof(
        name="crash-points",
        figure=f"{killed.total()} kills at {len(places)} kinds of points: {len(duplicates)} duplicate, {len(wrong)} "
        f"disagreements or orphans, longest without a stop {longest_s:.1f} s",
        bar=f"every point; 0, 0, <= {BOUND_S:g} s",
        holds=not duplicates and not wrong and killed.total() > 0 and longest_s <= BOUND_S,
        details=(
            ", ".join(f"{name}: {number}" for name, number in killed.items()),
            "; ".join(sorted(places)),
            *wrong[:20],
        ),
    )


async def _trade(desk: Desk, name: str, direction: Direction, notional: Decimal) -> None:
    approval = await desk.approval(
        _SYMBOL, notional=notional, distance=Decimal("0.05"), trace_id=name, direction=direction
    )
    await desk.executor.enter(approval, candle_close_ms=desk.now_ms())
    await desk.executor.request_exit(_SYMBOL, ExitReason.TIME_BARRIER)


def _not_what_it_stands_for(name: str, folder: Path, met: dict[str, list[int]]) -> list[str]:
    """Return a complaint where a story that nobody was killed in was not the one that it is meant to be."""
    trades = list(Book.rebuilt(events_in(folder / "journal.jsonl")).trades.values())
    if len(trades) == 1 and STANDS_FOR[name](Told(trades[0], met)):
        return []
    orders = [order for trade in trades for order in trade.orders.values()]
    told = ", ".join(f"{one.intent.purpose} {one.executed} of {one.intent.quantity} {one.status}" for one in orders)
    return [f"story {name} was not what it stands for: {told or 'nothing was ordered'}"]


def _die(name: str, url: str, folder: Path, point: int) -> str | None:
    """Run a story in a process of its own that kills itself at a point; return the point's name, None if it ended."""
    marks = folder / "marks"
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(_live(name, url, folder, point, marks))
        except BaseException:  # noqa: BLE001 - the child ends here, whatever it was
            traceback.print_exc(file=sys.stderr)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return marks.read_text()
    if os.waitstatus_to_exitcode(status) != 0:
        raise ProofError(f"Story {name} failed at point {point}: see the log")
    return None


async def _live(name: str, url: str, folder: Path, point: int, marks: Path) -> None:
    passed = 0
    counting = False

    def moment(what: str) -> None:
        nonlocal passed
        passed += counting
        if passed == point and counting:
            marks.write_text(what)
            os.kill(os.getpid(), signal.SIGKILL)

    style = STYLES.get(name, EntryStyle.MARKET)
    async with open_desk(url, folder / "journal.jsonl", moment=moment, entry_style=style) as desk:
        # What is asked at the start changes nothing; the story begins here.
        counting = True
        await STORIES[name](desk, url, f"{name}-{point}")
        counting = False


async def _come_back(url: str, folder: Path, wallet: Decimal) -> list[str]:
    """
    Start again from the journal, and return what is wrong then, and what is wrong once all is closed.

    `wallet` is what the account held before the story.
    """
    wrong: list[str] = []
    async with open_desk(url, folder / "journal.jsonl") as desk:
        wrong += await _last_words(lambda: _differences(desk, url))
        for trade in list(desk.executor.book.active()):
            await desk.executor.request_exit(trade.symbol, ExitReason.OPERATOR)
        wrong += await _last_words(lambda: _open_trades(desk))
    audit = await asyncio.to_thread(get, f"{url}/sandbox/audit")
    paid = Decimal(audit["wallet"]) - wallet
    if paid != (earned := _earned(folder / "journal.jsonl")):
        wrong.append(f"the journal says {earned} was earned, the venue {paid}")
    wrong += [f"{one['symbol']} stayed open" for one in audit["open_positions"]]
    wrong += [f"{audit[what]} {what} left" for what in ("open_orders", "open_algo_orders") if audit[what]]
    return wrong


async def _last_words(complaints: Callable[[], Awaitable[list[str]]]) -> list[str]:
    """Ask until there is nothing to complain of, and return what there still is when time is over."""
    began = monotonic()
    while True:
        if not (found := await complaints()) or monotonic() - began > _QUIET_S:
            return found
        await asyncio.sleep(0.1)


async def _open_trades(desk: Desk) -> list[str]:
    return [f"{trade.symbol} is not closed" for trade in desk.executor.book.active()]


async def _differences(desk: Desk, url: str) -> list[str]:
    """Return in which symbols journal and venue disagree, or a position has no stop."""
    audit: dict[str, Any] = await asyncio.to_thread(get, f"{url}/sandbox/audit")
    held = {position.symbol: position.signed_quantity for position in await desk.gateway.positions()}
    known = {trade.symbol: trade.signed_quantity for trade in desk.executor.book.active() if trade.signed_quantity}
    bare = [str(one["symbol"]) for one in audit["open_positions"] if not one["protected"]]
    return [f"{symbol} has no stop" for symbol in bare] + [
        f"{symbol}: {known.get(symbol, 0)} with us, {held.get(symbol, 0)} at the venue"
        for symbol in held.keys() | known.keys()
        if held.get(symbol, 0) != known.get(symbol, 0)
    ]


def _earned(journal: Path) -> Decimal:
    results = {event.trade_id: event.result for event in events_in(journal) if isinstance(event, TradeClosed)}
    return sum((one.pnl for one in results.values()), Decimal(0))
