"""Thousands of orders of which almost every second sending fails somehow: each is executed once, or provably never."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections import Counter
from decimal import Decimal
from itertools import count
from typing import Any

from feature_store.clock import monotonic
from feature_store.venue.errors import VenueError
from inference.domain.events import OrderIntended, TradeClosed
from inference.domain.signal import Direction
from inference.domain.trade import ExitReason
from inference.execution.lifecycle import Order
from infra.prove.desk import Desk, open_desk
from infra.prove.proof import Proof, Size
from infra.prove.record import events_in
from infra.prove.servers import Servers
from infra.prove.stage import Stage, get, post

INTENTS = {Size.FULL: 2_400, Size.CI: 320}
LEAST_SENDS_FAULTED, LEAST_QUERIES_FAULTED = 0.40, 0.10
_SYMBOLS = 40
_ENDS_S = 240.0
_SENDS = ("/fapi/v1/order", "/fapi/v1/algoOrder")
_QUERIES = (*_SENDS, "/fapi/v1/openOrders", "/fapi/v1/openAlgoOrders", "/fapi/v3/positionRisk", "/fapi/v1/userTrades")
_PAGE = "<html><body>The server is busy</body></html>"
# What becomes of a sending, and how often it is one of these: half of all sendings.
_FATES: tuple[dict[str, Any], ...] = (
    {"action": "exec_then_drop"},
    {"action": "exec_then_hang", "secs": 2.5},
    {"action": "exec_then_status", "status": 503, "code": -1000},
    {"action": "exec_then_status", "status": 504, "body": ""},
    {"action": "exec_then_status", "status": 408, "code": -1007},
    {"action": "exec_then_status", "status": 200, "body": _PAGE},
    {"action": "late_exec", "secs": 1.0, "status": 503, "code": -1000},
    {"action": "late_exec", "secs": 2.5, "status": 503, "code": -1007},
    {"action": "status", "status": 200, "body": _PAGE},
    {"action": "status", "status": 502, "body": ""},
    {"action": "status", "status": 503, "code": -1008},
    {"action": "drop"},
)
_SILENCES: tuple[dict[str, Any], ...] = (
    {"action": "status", "status": 503, "code": -1000},
    {"action": "status", "status": 200, "body": _PAGE},
    {"action": "drop"},
    {"action": "delay", "secs": 0.7},
)


def prove(size: Size) -> Proof:
    """Open and leave positions in many symbols at once while the venue answers badly; then hold all against it."""
    with Stage("exactly-once") as stage, Servers(stage) as servers:
        url = servers.sandbox(symbols=_SYMBOLS, speed=1, balance=10_000_000, start="2026-01-05T01:00:00Z")
        shutil.rmtree(stage.home / "journal", ignore_errors=True)
        (stage.home / "journal").mkdir()
        journal = stage.home / "journal" / "journal.jsonl"
        began = monotonic()
        found = asyncio.run(_trade(url, journal, INTENTS[size]))
        seconds = monotonic() - began
        audit = get(f"{url}/sandbox/audit")
        events = events_in(journal)

    intents = {event.intent.client_order_id for event in events if isinstance(event, OrderIntended)}
    results = {event.trade_id: event.result for event in events if isinstance(event, TradeClosed)}
    duplicates = audit["duplicate_client_ids"]
    earned = sum((one.pnl for one in results.values()), Decimal(0))
    venue_earned = Decimal(audit["wallet"]) - Decimal(audit["opening_balance"])
    differences = [*found.differences]
    if earned != venue_earned:
        differences.append(f"the journal says {earned} was earned, the venue {venue_earned}")
    differences += [f"{one['symbol']} is open at the venue" for one in audit["open_positions"]]
    differences += [
        f"{audit[what]} {what} rest at the venue" for what in ("open_orders", "open_algo_orders") if audit[what]
    ]
    sends, queries = found.share("POST", _SENDS), found.share("GET", _QUERIES)
    enough = len(intents) >= INTENTS[size] and sends >= LEAST_SENDS_FAULTED and queries >= LEAST_QUERIES_FAULTED
    return Proof(
        name="exactly-once",
        figure=f"{len(intents)} intents, {sends:.0%} of sends and {queries:.0%} of queries faulted: {len(duplicates)} "
        f"duplicate, {found.missing} missing, {len(differences)} differences between belief and venue",
        bar=f">= {INTENTS[size]} intents, >= {LEAST_SENDS_FAULTED:.0%} of sends and >= {LEAST_QUERIES_FAULTED:.0%} of "
        "queries faulted; 0, 0, 0",
        holds=enough and not duplicates and not found.missing and not differences,
        details=(
            f"{len(results)} trades in {seconds:.0f} s; orders that provably never happened: {found.given_up}",
            f"longest without a stop {audit['unprotected']['max_wall_ms'] / 1000:.1f} s (seconds of the wall)",
            f"ended by: {', '.join(f'{n} {why}' for why, n in Counter(r.reason for r in results.values()).items())}",
            *differences[:20],
        ),
    )


class _Found:
    """What was believed of each order, and what the venue says of it once it is well again."""

    def __init__(self) -> None:
        self.believed: dict[str, Order] = {}
        self.met: dict[str, list[int]] = {}
        self.differences: list[str] = []
        self.missing = 0
        self.given_up = 0

    def share(self, method: str, paths: tuple[str, ...]) -> float:
        """Return the share of requests of these kinds that met a fault."""
        counts = [self.met.get(f"{method} {path}", [0, 0]) for path in paths]
        return sum(one[1] for one in counts) / max(1, sum(one[0] for one in counts))


async def _trade(url: str, journal: Any, intents: int) -> _Found:
    found = _Found()
    async with open_desk(url, journal) as desk:
        _break(url)
        numbers = count()
        async with asyncio.TaskGroup() as tasks:
            for symbol in desk.gateway.tradable_symbols():
                tasks.create_task(_one_symbol(desk, symbol, numbers, found, intents))
        found.met = (await asyncio.to_thread(post, f"{url}/sandbox/ctl", {"op": "log"}))["met"]
        await asyncio.to_thread(post, f"{url}/sandbox/ctl", {"op": "clear"})
        async with asyncio.timeout(_ENDS_S):
            while any(desk.executor.book.active()) or not await desk.executor.reconcile():
                for trade in list(desk.executor.book.active()):
                    await desk.executor.request_exit(trade.symbol, ExitReason.OPERATOR)
                await asyncio.sleep(0.5)
        for order in found.believed.values():
            await _compare(desk, order, found)
    return found


def _break(url: str) -> None:
    """Let every second sending fail, and every sixth question."""
    # The first rule that matches is taken: each later one meets only what the earlier ones left.
    for path in _SENDS:
        for place, fate in enumerate(_FATES):
            chance = 0.5 / len(_FATES) / (1 - 0.5 * place / len(_FATES))
            post(f"{url}/sandbox/ctl", {"op": "fault", "method": "POST", "path": path, "p": chance} | fate)
    for method, chance in (("DELETE", 0.2), ("GET", 0.16)):
        for path in _SENDS if method == "DELETE" else _QUERIES:
            for place, fate in enumerate(_SILENCES):
                part = chance / len(_SILENCES) / (1 - chance * place / len(_SILENCES))
                post(f"{url}/sandbox/ctl", {"op": "fault", "method": method, "path": path, "p": part} | fate)


async def _one_symbol(desk: Desk, symbol: str, numbers: Any, found: _Found, intents: int) -> None:
    rng = random.Random(symbol)
    while len(found.believed) < intents:
        try:
            approval = await desk.approval(
                symbol, notional=Decimal(1_000), distance=Decimal("0.05"), trace_id=f"trade-{next(numbers)}",
                direction=rng.choice([Direction.LONG, Direction.SHORT]),
            )  # fmt: skip
        except VenueError:
            continue
        await desk.executor.enter(approval, candle_close_ms=desk.now_ms())
        for _ in range(60):
            if not desk.executor.book.active_in(symbol):
                break
            await desk.executor.request_exit(symbol, ExitReason.TIME_BARRIER)
            await asyncio.sleep(0.3)
        # The book forgets old trades, so that theirs are noted as they end.
        for trade in desk.executor.book.trades.values():
            if trade.symbol == symbol:
                found.believed |= trade.orders


async def _compare(desk: Desk, order: Order, found: _Found) -> None:
    """Hold what is believed of an order against the venue's own record of it."""
    intent = order.intent
    report = await desk.gateway.query(intent)
    if report is None:
        found.given_up += order.never_existed
        if not order.never_existed and order.status.value != "REFUSED":
            found.missing += 1
            found.differences.append(f"{intent.client_order_id} is {order.status} with us, unknown to the venue")
        return
    if order.may_exist or order.executed != report.filled:
        found.differences.append(
            f"{intent.client_order_id} ({intent.purpose}) is {order.status} with {order.executed} executed with us, "
            f"{report.status} with {report.filled} at the venue"
        )
