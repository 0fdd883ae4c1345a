"""Requests and frames that take their time, at a venue without sockets."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.sandbox.arrivals import Arrivals, Reply, latency_ms
from infra.sandbox.control import perform
from infra.sandbox.engine.model import OrderStatus
from infra.sandbox.engine.rules import Rules
from infra.sandbox.engine.state import encode
from infra.sandbox.faults import FaultError
from infra.sandbox.late_frames import LateFrames
from infra.sandbox.market.series import DAY_MS, TICK_MS
from infra.sandbox.order_rules import changed
from infra.sandbox.protocol.signing import Credentials
from infra.sandbox.serve import Options, build
from infra.sandbox.server import Sandbox

D = Decimal
START_MS = 20_000 * DAY_MS
NAME = "SOLUSDT"
ORDER, BATCH = "/fapi/v1/order", "/fapi/v1/batchOrders"


def make_sandbox(folder=None) -> Sandbox:
    """Return a venue whose time only moves when it is told to."""
    return build(
        Options(
            host="127.0.0.1", port=0, symbols=(NAME,), symbol_count=1, seed=7, edge=0.0, speed=1.0, start_ms=START_MS,
            history_days=1, balance=D(10_000), taker_fee=D("0.0005"), maker_fee=D("0.0002"), spread_bps=D(1),
            credentials=Credentials("key", "secret"), state_folder=folder,
        )
    )  # fmt: skip


def prices(sandbox: Sandbox, ticks: int) -> list[Decimal]:
    """Return the prices of the first ticks from the start on."""
    venue = sandbox.venue
    column = venue.market.ticks(START_MS // DAY_MS).price[:ticks, 0].tolist()
    return [venue.market.instruments[0].price(one) for one in column]


def a_fall(sandbox: Sandbox, *, by: int = 3) -> tuple[int, Decimal]:
    """Return the number of a tick that falls below all before it, and a price between it and the lowest of those."""
    seen = prices(sandbox, 2_000)
    tick = sandbox.venue.market.instruments[0].tick
    fell = next(n for n in range(3, len(seen)) if seen[n] < min(seen[:n]) - by * tick)
    return fell, seen[fell] + (by - 1) * tick


def limit(price: Decimal, client_id: str = "ours") -> dict[str, str]:
    """Return the parameters of a limit order."""
    return {
        "symbol": NAME, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "3", "price": f"{price:f}",
        "newClientOrderId": client_id, "newOrderRespType": "RESULT",
    }  # fmt: skip


def sent(sandbox: Sandbox, method: str, path: str, values: dict[str, str], *, due_ms: int) -> list[Reply]:
    """Send a request and return where its answer will be."""
    answers: list[Reply] = []
    sandbox.venue.arrivals.send(method, path, values, due_ms=due_ms, answered=answers.append)
    return answers


def advance(sandbox: Sandbox, now_ms: int) -> None:
    """Move time on."""
    sandbox.venue.advance(now_ms, wall_ms=0.0)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", ORDER, 30), ("PUT", ORDER, 30), ("POST", BATCH, 30), ("POST", "/fapi/v1/algoOrder", 30),
        ("DELETE", ORDER, 50), ("DELETE", "/fapi/v1/allOpenOrders", 50), ("DELETE", "/fapi/v1/algoOpenOrders", 50),
        ("GET", ORDER, 0), ("POST", "/fapi/v1/leverage", 0), ("POST", "/fapi/v1/order/test", 0),
    ],
)  # fmt: skip
def test_only_what_changes_orders_takes_time(method, path, expected):
    """Orders and their changes take the time of an insertion, cancellations one of their own, the rest none."""
    assert latency_ms(Rules(insert_ms=30, cancel_ms=50), method, path) == expected


@pytest.mark.parametrize(("lead_ms", "cancelled"), [(1, True), (0, False), (-1, False)])
def test_cancellation_races_the_price(lead_ms, cancelled):
    """What arrives before the tick that fills cancels; at that tick or after it, the order is unknown (-2011)."""
    sandbox = make_sandbox()
    fell, price = a_fall(sandbox)
    tick_ms = START_MS + fell * TICK_MS
    placed = sent(sandbox, "POST", ORDER, limit(price), due_ms=START_MS + 5)
    late = sent(sandbox, "DELETE", ORDER, {"symbol": NAME, "origClientOrderId": "ours"}, due_ms=tick_ms - lead_ms)
    advance(sandbox, tick_ms + TICK_MS)
    (order,) = sandbox.venue.exchange.state.orders.values()

    assert (placed[0].status, placed[0].data["status"]) == (200, "NEW")
    assert order.status is (OrderStatus.CANCELED if cancelled else OrderStatus.FILLED)
    assert (late[0].status == 200) == cancelled
    assert cancelled or late[0].data["code"] == -2011


def test_order_meets_the_market_at_which_it_arrives():
    """A post-only order that would have rested when it was sent is refused where the market has come to meet it."""
    sandbox = make_sandbox()
    fell, price = a_fall(sandbox, by=40)
    arrives = START_MS + fell * TICK_MS + 1
    placed = sent(sandbox, "POST", ORDER, limit(price) | {"timeInForce": "GTX"}, due_ms=arrives)
    advance(sandbox, arrives - 1)
    assert placed == []
    advance(sandbox, arrives)

    assert (placed[0].status, placed[0].data["code"]) == (400, -5022)


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 40 * TICK_MS), st.sampled_from(["buy", "sell", "limit", "cancel"])), max_size=12
    ),
    stops=st.lists(st.integers(0, 41 * TICK_MS), max_size=6),
)
@settings(max_examples=25, deadline=None)
def test_same_requests_meet_the_same_prices(steps, stops):
    """However time is cut into pieces, requests that arrive at the same moments end in the same state."""
    outcomes = []
    for pauses in (stops, []):
        sandbox = make_sandbox()
        sandbox.venue.exchange.state.rules = Rules(
            seed=7, touch_probability=D("0.5"), participation=D("0.2"), queue=True
        )
        start = prices(sandbox, 1)[0]
        for after_ms, kind in steps:
            if kind == "cancel":
                sent(sandbox, "DELETE", "/fapi/v1/allOpenOrders", {"symbol": NAME}, due_ms=START_MS + after_ms)
            elif kind == "limit":
                sent(sandbox, "POST", ORDER, limit(start, f"l{after_ms}"), due_ms=START_MS + after_ms)
            else:
                values = {"symbol": NAME, "side": kind.upper(), "type": "MARKET", "quantity": "2"}
                sent(sandbox, "POST", ORDER, values, due_ms=START_MS + after_ms)
        for pause in sorted(pauses):
            advance(sandbox, START_MS + pause)
        advance(sandbox, START_MS + 41 * TICK_MS)
        outcomes.append(encode(sandbox.venue.exchange.state))

    assert outcomes[0] == outcomes[1]


def test_what_is_in_flight_survives_a_restart(tmp_path):
    """A venue that stops with a request under way carries it out after its restart, at the moment it was due."""
    sandbox = make_sandbox(tmp_path)
    fell, price = a_fall(sandbox)
    sandbox.venue.exchange.state.rules = changed(sandbox.venue.exchange.state.rules, {"insert_ms": 40, "queue": True})
    sent(sandbox, "POST", ORDER, limit(price), due_ms=START_MS + 2 * TICK_MS + 7)
    sent(
        sandbox, "DELETE", ORDER, {"symbol": NAME, "origClientOrderId": "ours"}, due_ms=START_MS + (fell + 5) * TICK_MS
    )
    advance(sandbox, START_MS + TICK_MS)
    sandbox.save()
    again = make_sandbox(tmp_path)
    assert again.venue.arrivals.in_flight() == sandbox.venue.arrivals.in_flight()
    assert again.venue.exchange.state.rules == sandbox.venue.exchange.state.rules
    for one in (sandbox, again):
        advance(one, START_MS + (fell + 9) * TICK_MS)

    assert encode(again.venue.exchange.state) == encode(sandbox.venue.exchange.state)
    assert [order.status for order in again.venue.exchange.state.orders.values()] == [OrderStatus.FILLED]


def test_requests_of_one_moment_arrive_as_they_were_sent():
    """Equal moments keep the order of sending, and nobody carries out what nobody was named for."""
    arrivals, seen = Arrivals(), []
    for number in range(20):
        arrivals.send("POST", ORDER, {"n": str(number)}, due_ms=5)
    arrivals.send("POST", ORDER, {"n": "early"}, due_ms=4)
    with pytest.raises(RuntimeError, match="nobody was named"):
        arrivals.deliver(arrivals.in_flight()[0])
    arrivals.perform = lambda one: Reply(200, seen.append(one.values["n"]))
    for one in arrivals.due(5):
        arrivals.deliver(one)

    assert seen == ["early", *map(str, range(20))]
    assert arrivals.in_flight() == []


class Reader:
    """Keeps the frames it was given."""

    def __init__(self) -> None:
        self.frames: list[str] = []
        self.has_four = asyncio.Event()

    def push(self, frame: str) -> None:
        """Take a frame."""
        self.frames.append(frame)
        if len(self.frames) == 4:
            self.has_four.set()


async def test_late_frames_keep_their_order():
    """Frames wait as long as was said, and one that would be faster waits for those before it."""
    late, reader = LateFrames(), Reader()
    late.push(reader, "now")
    assert reader.frames == ["now"]
    late.seconds = 0.05
    late.push(reader, "first")
    late.push(reader, "second")
    late.seconds = 0.0
    late.push(reader, "third")
    assert reader.frames == ["now"]
    async with asyncio.timeout(60):
        await reader.has_four.wait()

    assert reader.frames == ["now", "first", "second", "third"]


@pytest.mark.parametrize(
    "asked",
    [
        {"insert_ms": -1}, {"insert_ms": 1.5}, {"insert_ms": True}, {"insert_ms": "9"}, {"cancel_ms": 10**9},
        {"participation": 2}, {"participation": "much"}, {"participation": "NaN"}, {"impact_bps": "Infinity"},
        {"touch_probability": -0.1}, {"touch_probability": [1]}, {"queue": "yes"}, {"queue": 1}, {"seed": 3},
        {"take_bound": 1}, {"nonsense": 1},
    ],
    ids=str,
)  # fmt: skip
async def test_control_plane_refuses_rules_that_cannot_be(asked):
    """A rule that is unknown, or cannot have its value, is refused and changes nothing."""
    sandbox = make_sandbox()
    before = sandbox.venue.exchange.state.rules

    with pytest.raises(FaultError, match=r"[Rr]ule"):
        await perform(sandbox, {"op": "rules", **asked})
    assert sandbox.venue.exchange.state.rules == before


async def test_control_plane_shows_and_clears_rules():
    """Rules are changed one by one, shown together, and off again after `clear`."""
    sandbox = make_sandbox()
    none = await perform(sandbox, {"op": "rules"})
    await perform(sandbox, {"op": "rules", "insert_ms": 30, "feed_ms": 500, "participation": "0.1"})
    shown = await perform(sandbox, {"op": "rules", "queue": True, "insert_ms": None})

    assert (shown["insert_ms"], shown["participation"], shown["queue"]) == (30, "0.1", True)
    assert sandbox.hub.late.seconds == 0.5
    await perform(sandbox, {"op": "clear"})
    assert await perform(sandbox, {"op": "rules"}) == none
    assert sandbox.hub.late.seconds == 0.0
    assert sandbox.venue.exchange.state.rules.take_bound == D("0.15")
