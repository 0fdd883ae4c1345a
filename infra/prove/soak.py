"""
Accelerated trading of the real worker for an hour while every twentieth request fails: all money is accounted for.

`python -m infra.prove.soak --hours 24` trades for as long as is asked.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil

from feature_store.clock import monotonic
from inference.domain.events import Event, FillBooked, OrderIntended, TradeClosed
from inference.domain.order import Side
from inference.domain.trade import ExitReason, TradeResult
from inference.execution.book import Book
from inference.execution.funding import FundingAccount, funding_payment
from inference.journal.codec import entry_of, event_of
from infra.prove.practice_bundle import practice_bundle
from infra.prove.proof import Proof, Size
from infra.prove.record import book_differences
from infra.prove.resident import Resident
from infra.prove.running_worker import RunningWorker
from infra.prove.servers import Servers, listener
from infra.prove.stage import ProofError, Stage, get, post, wait_until
from infra.sandbox.engine.position import Position, apply_fill, cents

SECONDS = {Size.FULL: 3_600.0, Size.CI: 30.0}
SPEED = {Size.FULL: 60, Size.CI: 120}
# The venue keeps all that ever happened: a day at the speed of the hour would fill the memory of a small machine.
LONG_SPEED = 10
SYMBOLS = 100
FAULTED = 0.05
LEAST_FAULTED = 0.045
# A stop is confirmed within 5 s of the entry or the position is left; the next order after one that is lost follows
# within 1.7 s. What all waits add up to where of three requests in a row one is answered: test_bare_bound.py.
BOUND_S = 8.0
MOST_MB_AN_HOUR = 1.0
LEAST_TRADES_A_MINUTE = 20
_SAMPLE_S = 1.0
_CUT_EVERY_S = 90.0
_AGREE_S = 120.0
_PAGE = "<html><body>The server is busy</body></html>"
# What becomes of an order, and of anything else; each is as likely as the others.
_FATES: tuple[dict[str, Any], ...] = (
    {"action": "exec_then_drop"},
    {"action": "exec_then_status", "status": 503, "code": -1000},
    {"action": "exec_then_status", "status": 408, "code": -1007},
    {"action": "exec_then_status", "status": 200, "body": _PAGE},
    {"action": "late_exec", "secs": 1.0, "status": 503, "code": -1007},
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
_ORDERS = ("/fapi/v1/order", "/fapi/v1/algoOrder")
_POLICY = """
confidence_threshold = 0.5
cooldown_seconds = 0
max_positions = 100
max_exposure = 3
max_portfolio_heat = 1
min_notional = 5
max_notional = 1000
max_daily_drawdown = 0.15
stop_atr_multiple = 2
target_atr_multiple = 2
max_holding_candles = 3
taker_fee = 0
slippage = 0
"""


def prove(size: Size) -> Proof:
    """Trade for an hour; CI trades for a moment, in which memory only fills and is not judged."""
    return soak(SECONDS[size], speed=SPEED[size])


def soak(seconds: float, *, speed: float) -> Proof:
    """Let the worker trade a hundred symbols for so long, then hold its journal against the venue."""
    with Stage("soak") as stage, Servers(stage) as servers:
        bundle = practice_bundle(stage.home / "bundle")
        policy = stage.home / "policy.toml"
        policy.write_text(_POLICY)
        # From an hour before a boundary of funding on, so that any run pays some.
        url = servers.sandbox(symbols=SYMBOLS, speed=speed, balance=1_000_000, start="2026-01-05T07:00:00Z")
        worker = RunningWorker(stage, {"sandbox": url}, policy=str(policy), bundle=bundle)
        worker.start()
        worker.wait_for("trading", seconds=120)
        _break(url)
        memory, of_venue = Resident(speed), Resident(speed)
        _trade(stage, worker, url, seconds, memory, of_venue)
        met = post(f"{url}/sandbox/ctl", {"op": "log"})["met"]
        post(f"{url}/sandbox/ctl", {"op": "clear"})
        found = _settled(stage, url)
        status = stage.worker_status()
        worker.stop()
    return _judged(found, memory, seconds, _share(met), _details(found, memory, of_venue, status))


def _break(url: str) -> None:
    """Let every twentieth request fail, orders in every way there is."""
    for method, paths, fates in (("POST", _ORDERS, _FATES), ("DELETE", _ORDERS, _FATES), ("", ("/fapi/",), _SILENCES)):
        for path in paths:
            for place, fate in enumerate(fates):
                # The first rule that matches is taken: each later one meets only what the earlier ones left.
                part = FAULTED / len(fates) / (1 - FAULTED * place / len(fates))
                post(f"{url}/sandbox/ctl", {"op": "fault", "method": method, "path": path, "p": part} | fate)


def _trade(stage: Stage, worker: RunningWorker, url: str, seconds: float, memory: Resident, of_venue: Resident) -> None:
    began, rng = monotonic(), random.Random(3)
    cut_at = began + min(_CUT_EVERY_S, seconds / 3)
    assert worker.process is not None
    process, venue = psutil.Process(worker.process.pid), listener(url)
    while (now := monotonic()) - began < seconds:
        if worker.process.poll() is not None:
            tail = (stage.home / "worker.log").read_text(errors="replace")[-1500:]
            raise ProofError(f"The worker ended with {worker.process.returncode}: {tail}")
        memory.note(now - began, process.memory_info().rss)
        of_venue.note(now - began, venue.memory_info().rss)
        if now >= cut_at:
            post(f"{url}/sandbox/ctl", {"op": "kill_ws", "hard": rng.random() < 0.5})
            cut_at = now + _CUT_EVERY_S * rng.uniform(0.5, 1.5)
        time.sleep(_SAMPLE_S)


@dataclass(frozen=True, slots=True)
class _Found:
    audit: dict[str, Any]
    money: _Money
    closed: Counter[str]
    differences: list[str]


class _Journal:
    """What the journal tells of trading, read on from where it ended before: an hour's is too long to read twice."""

    def __init__(self, path: Path) -> None:
        self.events: list[Event] = []
        self.book = Book()
        self._path = path
        self._offset = 0

    def read_on(self) -> None:
        """Take in what was written since; a line that is being written is left for the next time."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                # What was looked at before a decision is nine tenths of a journal, and moves no money.
                if b'"type":"signal.' in line[-80:]:
                    continue
                event = event_of(entry_of(line))
                self.book.apply(event)
                self.events.append(event)


def _settled(stage: Stage, url: str) -> _Found:
    """Let time stand still, so that nothing more happens, and wait until journal and venue tell the same."""
    post(f"{url}/sandbox/ctl", {"op": "stand_still"})
    journal = _Journal(stage.home / "journal" / "journal.jsonl")
    found: list[_Found] = []

    def agree() -> bool:
        before = get(f"{url}/sandbox/audit", timeout=120)
        journal.read_on()
        audit = get(f"{url}/sandbox/audit", timeout=120)
        money = money_of(journal.events, audit)
        quiet = all(before[name] == audit[name] for name in ("orders", "fills", "wallet", "open_algo_orders"))
        intended = {one.intent.client_order_id for one in journal.events if isinstance(one, OrderIntended)}
        differences = [*book_differences(journal.book, intended, audit), *money.differences]
        reasons = Counter(one.result.reason.value for one in journal.events if isinstance(one, TradeClosed))
        differences += [] if quiet else ["the account is not at rest"]
        found.append(_Found(audit, money, reasons, differences))
        return not differences

    try:
        wait_until(agree, seconds=_AGREE_S, what="journal and venue to agree", every=0.5)
    except ProofError:
        # The smallest disagreement is what no quiet moment removed.
        return min(found, key=lambda one: len(one.differences))
    return found[-1]


@dataclass(frozen=True, slots=True)
class _Money:
    """What the journal says was earned and paid, beside what the venue says."""

    trades: int
    earned: Decimal
    fees: Decimal
    funding: Decimal
    differences: list[str]


def money_of(events: list[Event], audit: dict[str, Any]) -> _Money:
    """Hold what the journal says of each trade that is over, and of all, against the venue's round trips and wallet."""
    fills = {(one.fill.symbol, one.fill.fill_id): one.fill for one in events if isinstance(one, FillBooked)}
    results = {one.trade_id: one.result for one in events if isinstance(one, TradeClosed)}
    owners = {one.intent.client_order_id: one.intent.trade_id for one in events if isinstance(one, OrderIntended)}
    funding = FundingAccount()
    for payment in filter(None, map(funding_payment, events)):
        funding.count(payment)
    fees, earned = sum((one.fee for one in fills.values()), Decimal(0)), Decimal(0)
    held: dict[str, Position] = {}
    for fill in sorted(fills.values(), key=lambda one: int(one.fill_id)):
        signed = fill.quantity if fill.side is Side.BUY else -fill.quantity
        change = apply_fill(held.get(fill.symbol, Position(fill.symbol)), signed, fill.price, now_ms=fill.event_time_ms)
        held[fill.symbol] = change.position
        earned += change.realized_pnl

    venue = {name: Decimal(audit[name]) for name in ("realized_pnl", "fees", "funding", "wallet", "opening_balance")}
    differences = list(_by_trade(results, owners, audit))
    if len(fills) != int(audit["fills"]):
        differences.append(f"the journal holds {len(fills)} executions, the venue {audit['fills']}")
    for what, ours, theirs in (
        ("was earned before fees", earned, venue["realized_pnl"]),
        ("was paid in fees", fees, venue["fees"]),
        ("was received in funding", funding.total, venue["funding"]),
        ("is in the wallet", venue["opening_balance"] + earned - fees + funding.total, venue["wallet"]),
    ):
        if ours != theirs:
            differences.append(f"the journal says {ours} {what}, the venue {theirs}")
    over = sum(one.reason is not ExitReason.NOT_ENTERED for one in results.values())
    return _Money(over, earned, fees, funding.total, differences)


def _by_trade(results: Mapping[str, TradeResult], owners: Mapping[str, str], audit: dict[str, Any]) -> Iterator[str]:
    """Name the trades of which the journal and the venue's round trips tell another quantity, fee or profit."""
    trips: dict[str, list[dict[str, Any]]] = {}
    for one in audit["trades"]:
        trips.setdefault(owners.get(one["entry_client_ids"][0], "nobody"), []).append(one)
    for trade_id, result in results.items():
        mine = trips.pop(trade_id, [])
        ours = cents(result.pnl), cents(result.fees), result.quantity if mine else Decimal(0)
        theirs = (
            sum((Decimal(one["gross_pnl"]) - Decimal(one["fees"]) for one in mine), Decimal(0)),
            sum((Decimal(one["fees"]) for one in mine), Decimal(0)),
            sum((Decimal(one["quantity"]) for one in mine), Decimal(0)),
        )
        if ours != theirs:
            told = "profit, fees and quantity"
            yield f"trade {trade_id} of {result.symbol}: {told} are {_texts(ours)} with us, {_texts(theirs)} there"
    for trade_id, mine in trips.items():
        yield f"the venue knows {len(mine)} round trips of {trade_id} that the journal does not"


def _texts(amounts: tuple[Decimal, ...]) -> str:
    return " ".join(f"{one:f}" for one in amounts)


def _share(met: dict[str, list[int]]) -> tuple[int, float]:
    """Return how many requests there were, and what part of them met a fault."""
    counts = [found for name, found in met.items() if "/fapi/" in name]
    total = sum(one[0] for one in counts)
    return total, sum(one[1] for one in counts) / max(1, total)


def _judged(
    found: _Found, memory: Resident, seconds: float, requests: tuple[int, float], details: tuple[str, ...]
) -> Proof:
    audit, money = found.audit, found.money
    duplicates = audit["duplicate_client_ids"]
    bare_s = audit["unprotected"]["max_wall_ms"] / 1000
    growth = memory.growth()
    enough = money.trades >= LEAST_TRADES_A_MINUTE * seconds / 60 and requests[1] >= LEAST_FAULTED
    return Proof(
        name="soak",
        figure=f"{money.trades} trades in {seconds / 60:.1f} minutes, {requests[1]:.1%} of {requests[0]} requests "
        f"faulted: {len(found.differences)} differences in money or positions, {len(duplicates)} duplicate orders, "
        f"longest without a stop {bare_s:.1f} s, {memory.told()}",
        bar=f"0, 0, <= {BOUND_S:g} s, <= {MOST_MB_AN_HOUR:g} MB an hour once filled; "
        f">= {LEAST_TRADES_A_MINUTE} trades a minute, >= {LEAST_FAULTED:.1%} faulted",
        holds=enough
        and not (found.differences or duplicates)
        and bare_s <= BOUND_S
        and (growth is None or growth <= MOST_MB_AN_HOUR),
        details=details,
    )


def _details(found: _Found, memory: Resident, of_venue: Resident, status: dict[str, Any]) -> tuple[str, ...]:
    audit, money = found.audit, found.money
    traded, still_open = len(audit["symbols_traded"]), len(audit["open_positions"])
    reasons = ", ".join(f"{number} {why}" for why, number in found.closed.most_common())
    first, last, most = memory.mb[0], memory.mb[-1], max(memory.mb)
    venue = f"the venue's {of_venue.mb[0]:.0f} and {of_venue.mb[-1]:.0f} MB"
    return (
        f"{SYMBOLS} symbols, {traded} traded, {audit['fills']} fills, {still_open} positions open at the end",
        f"earned before fees {money.earned:f}, fees {money.fees:f}",
        f"funding {money.funding:f}",
        f"ended by: {reasons}",
        f"the worker's memory: {first:.1f} MB at first, {last:.1f} MB at last, at most {most:.1f} MB; {venue}",
        f"the worker was {status.get('state')}: {status.get('reason')}",
        *found.differences[:20],
    )


def main() -> int:
    """Trade for as long as is asked and judge it as the proof does."""
    parser = argparse.ArgumentParser(prog="infra.prove.soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=24.0, help="hours of the wall to trade (default 24)")
    parser.add_argument("--speed", type=float, default=LONG_SPEED, help="venue seconds in a second (default 10)")
    arguments = parser.parse_args()
    if not 0 < arguments.hours <= 24 * 30 or not 1 <= arguments.speed <= 1_000:
        parser.error("--hours expects more than 0 and at most 720, --speed 1 to 1000")
    proof = soak(arguments.hours * 3_600, speed=arguments.speed)
    for line in proof.details:
        print(f"   {line}")
    print(f"{proof.verdict} {proof.name}: {proof.figure} (bar: {proof.bar})")
    return 0 if proof.holds else 1


if __name__ == "__main__":
    sys.exit(main())
