"""What the control plane can do to the venue beyond failing single requests, and what ends each of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import ROUND_HALF_EVEN, Decimal
from functools import partial as partial_of
from typing import TYPE_CHECKING, Any

from feature_store import clock as wall
from infra.sandbox import interventions
from infra.sandbox.disturbed import ThinBook
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.margin import mark_of
from infra.sandbox.engine.model import OrderRequest, OrderType, Side
from infra.sandbox.engine.spot_state import QUOTE
from infra.sandbox.faults import LONGEST_SECONDS, Fault, FaultError, flag, number, parse_fault
from infra.sandbox.limits import Limits
from infra.sandbox.listen_keys import MINUTES
from infra.sandbox.presets import PRESETS
from infra.sandbox.script import Ending, Undo, parse_steps
from infra.sandbox.streams import MAX_MESSAGES, MAX_STREAMS

if TYPE_CHECKING:
    from infra.sandbox.server import Sandbox

Answer = dict[str, Any]
LONGEST_FRAME = 1_000_000
LONGEST_SKEW_MS = 1e12


def fault(sandbox: Sandbox, body: Answer) -> Answer:
    """Let requests fail."""
    rule = parse_fault(body)
    sandbox.faults.add(rule)
    return {"faults": len(sandbox.faults.rules)}


def freeze(sandbox: Sandbox, body: Answer) -> Answer:
    """Send nothing any more over sockets that stay open and answer pings: all, or those that carry a symbol now."""
    frozen = flag(body, "on", default=True)
    if body.get("symbol"):
        symbol = _symbol(sandbox, body)
        return {"frozen": sandbox.hub.freeze(symbol)} if frozen else {"thawed": sandbox.hub.thaw(symbol)}
    sandbox.hub.thaw()
    sandbox.hub.frozen_market = frozen and flag(body, "market", default=True)
    sandbox.hub.frozen_user = frozen and flag(body, "user", default=True)
    return {}


def ws_fault(sandbox: Sandbox, body: Answer) -> Answer:
    """Disturb what sockets bring: all that is not named is switched off."""
    hub, disturbed = sandbox.hub, sandbox.disturbed
    on = flag(body, "on", default=True)
    hub.doubles = on and flag(body, "dup", default=False)
    hub.reverses = on and flag(body, "reverse", default=False)
    hub.frozen_user = on and flag(body, "drop_user", default=False)
    hub.frozen_market = on and flag(body, "freeze_market", default=False)
    status = int(number(body, "handshake", 0, least=0, most=599))
    disturbed.handshakes = int(number(body, "times", 1, least=0, most=10**6)) if on and status else 0
    disturbed.handshake_status = status if status >= 400 else 429
    disturbed.handshake_retry_after = number(body, "secs", 2.0, most=LONGEST_SECONDS)
    return {}


def black_hole(sandbox: Sandbox, body: Answer) -> Answer:
    """Swallow everything that comes, and answer nothing, not even pings."""
    sandbox.disturbed.swallow(on=flag(body, "on", default=True))
    return {}


def push(sandbox: Sandbox, body: Answer) -> Answer:
    """Send a frame as it is to market streams, to account streams, or to all."""
    to, frame = str(body.get("to") or "all"), str(body.get("frame") or "")
    if to not in {"all", "market", "user"}:
        raise FaultError(f"'to' expects all, market or user, was '{to[:40]}'")
    if len(frame) > LONGEST_FRAME:
        raise FaultError(f"A frame holds at most {LONGEST_FRAME} characters, was {len(frame)}")
    # A channel of a socket reads events; a frame as it is goes to the socket itself.
    accounts = sandbox.bitfinex.account.listeners
    found = [
        one
        for one in sandbox.hub.sockets()
        if to == "all" or (one.listen_key is not None or one in accounts) == (to == "user")
    ]
    for connection in found:
        connection.push(frame)
    return {"pushed": len(found)}


def skew(sandbox: Sandbox, body: Answer) -> Answer:
    """Tell a time that is wrong, and judge requests by it."""
    sandbox.clock.skew_ms = int(number(body, "ms", 0, least=-LONGEST_SKEW_MS, most=LONGEST_SKEW_MS))
    return {"skew_ms": sandbox.clock.skew_ms}


def expire_key(sandbox: Sandbox, body: Answer) -> Answer:
    """End the listen key, with a word to its sockets or without."""
    return {"expired": sandbox.expire_listen_key(silent=flag(body, "silent", default=False))}


def key_life(sandbox: Sandbox, body: Answer) -> Answer:
    """Say how long listen keys live, and on which clock."""
    keys = sandbox.listen_keys
    keys.minutes = number(body, "minutes", MINUTES, least=0.001, most=1e6)
    keys.on_venue_time = flag(body, "venue_time", default=False)
    return {"minutes": keys.minutes, "venue_time": keys.on_venue_time}


def stale_reads(sandbox: Sandbox, body: Answer) -> Answer:
    """Answer questions about orders from a copy that lags."""
    on = flag(body, "on", default=True)
    sandbox.disturbed.stale_seconds = number(body, "secs", 3.0, most=LONGEST_SECONDS) if on else 0.0
    return {"stale_seconds": sandbox.disturbed.stale_seconds}


def partial(sandbox: Sandbox, body: Answer) -> Answer:
    """Let takers get a part of what they want; what is left of a market order expires."""
    exchange = sandbox.venue.exchange
    if isinstance(exchange.book, ThinBook):
        exchange.book = exchange.book.whole
    share = Decimal(str(number(body, "frac", 0.5, least=0.0, most=1.0)))
    times = body.get("times")
    if flag(body, "on", default=True) and share < 1:
        left = None if times is None else int(number(body, "times", 1, least=1, most=10**9))
        exchange.book = ThinBook(exchange.book, share, left)  # type: ignore[assignment]
    sandbox.venue.spot.book = exchange.book
    return {"frac": float(share)}


def limits(sandbox: Sandbox, body: Answer) -> Answer:
    """Allow so much and no more; without numbers, as much as the live venue does."""
    if not flag(body, "on", default=True):
        sandbox.hub.most_streams, sandbox.hub.most_messages = MAX_STREAMS, None
        sandbox.limiter.limits = Limits()
        sandbox.limiter.lift()
        return {"on": False}
    sandbox.limiter.limits = Limits(
        weight_1m=int(number(body, "weight", 2_400, least=1, most=1e9)),
        orders_10s=int(number(body, "orders_10s", 300, least=1, most=1e9)),
        orders_1m=int(number(body, "orders_1m", 1_200, least=1, most=1e9)),
        strikes=int(number(body, "strikes", 3, least=1, most=1e9)),
        ban_seconds=number(body, "ban_secs", 120.0, most=259_200.0),
    )
    sandbox.hub.most_streams = int(number(body, "streams", MAX_STREAMS, least=1, most=1e9))
    sandbox.hub.most_messages = int(number(body, "messages", MAX_MESSAGES, least=1, most=1e9))
    return {"on": True}


def hold(sandbox: Sandbox, body: Answer) -> Answer:
    """Ask everybody to wait with 429 and Retry-After, and ban with 418 whoever goes on asking."""
    if not flag(body, "on", default=True):
        sandbox.limiter.lift()
        return {}
    known = sandbox.limiter.limits
    sandbox.limiter.limits = Limits(
        known.weight_1m, known.orders_10s, known.orders_1m,
        strikes=int(number(body, "strikes", 3, least=1, most=1e9)),
        ban_seconds=number(body, "ban_secs", 120.0, most=259_200.0),
    )  # fmt: skip
    sandbox.limiter.hold(wall.monotonic(), number(body, "secs", 5.0, most=LONGEST_SECONDS))
    return {}


def seed(sandbox: Sandbox, body: Answer) -> Answer:
    """Draw the chance of faults anew from a seed, by default the venue's; its market is no chance and stays."""
    sandbox.faults.reseed(int(number(body, "seed", sandbox.venue.seed, least=0, most=2**63)))
    return {"seed": sandbox.faults.seed}


def legacy(sandbox: Sandbox, body: Answer) -> Answer:
    """Take conditional orders at the plain endpoint, as the venue did until the end of 2025, or refuse them again."""
    sandbox.legacy_conditionals = flag(body, "on", default=True) and body.get("mode", "accept") == "accept"
    return {"accepted": sandbox.legacy_conditionals}


def price(sandbox: Sandbox, body: Answer) -> Answer:
    """
    Trade once at another price, `factor` times the last one; the next tick is the market's own again.

    The mark price follows no single trade: it stays where it was, unless `also_mark` is said.
    """
    moves_mark = flag(body, "also_mark", default=False)
    factor = number(body, "factor", 1.0, least=0.01, most=100.0)
    now_ms = sandbox.advance()
    for symbol in _symbols(sandbox, body):
        instrument = sandbox.venue.instrument(symbol)
        wick = (sandbox.venue.last_price(symbol) * Decimal(str(factor))).quantize(instrument.tick, ROUND_HALF_EVEN)
        sandbox.venue.touch(symbol)
        sandbox.venue.hide_book(symbol)
        for account in sandbox.venue.accounts:
            marks = {} if moves_mark else {symbol: mark_of(account.state, symbol)}
            account.tick({symbol: max(wick, instrument.tick)}, now_ms=now_ms, marks=marks)
            account.state.mark_prices.pop(symbol, None)
    sandbox.settle()
    return {}


def trade(sandbox: Sandbox, body: Answer) -> Answer:
    """Trade on the account by somebody else's hand."""
    symbol = _symbol(sandbox, body)
    side = str(body.get("side") or "").upper()
    if side not in {"BUY", "SELL"}:
        raise FaultError(f"'side' expects BUY or SELL, was '{side[:40]}'")
    quantity = Decimal(str(number(body, "quantity", 0.0, least=1e-12, most=1e12)))
    return _submit(sandbox, symbol, Side(side), quantity, f"web_{sandbox.venue.exchange.state.next_order_id}")


def deposit(sandbox: Sandbox, body: Answer) -> Answer:
    """Bring an asset to the spot account, or take it away where the amount is negative."""
    spot = sandbox.venue.spot
    known = {one.base for one in spot.lots.values()} | {QUOTE}
    asset = str(body.get("asset") or "").upper()
    if asset not in known:
        raise FaultError(f"'asset' expects one of the venue's, was '{asset[:40]}'")
    amount = Decimal(str(number(body, "quantity", 0.0, least=-1e12, most=1e12)))
    now_ms = sandbox.advance()
    try:
        spot.transfer(asset, amount, now_ms=now_ms)
    except VenueError as error:
        raise FaultError(f"The engine refused: {error}") from error
    finally:
        sandbox.settle()
    return {"asset": asset, "free": f"{spot.free(asset):f}", "locked": f"{spot.locked(asset):f}"}


def preset(sandbox: Sandbox, body: Answer) -> Answer:
    """Do what has a name."""
    del sandbox
    name = str(body.get("name") or "")
    if name not in PRESETS:
        raise FaultError(f"Unknown preset '{name[:40]}', expected one of {', '.join(PRESETS)}")
    raise Unfolded(PRESETS[name])


class Unfolded(Exception):  # noqa: N818 - not an error: an operation that stands for others.
    """An operation that stands for several others."""

    def __init__(self, operations: tuple[dict[str, Any], ...]) -> None:
        super().__init__()
        self.operations = operations


def script(sandbox: Sandbox, body: Answer) -> Answer:
    """Plan what is to be done, by the clock."""
    steps = parse_steps(body.get("steps"))
    unknown = sorted({str(one.operation["op"]) for one in steps} - OPERATIONS.keys() - _ALSO)
    if unknown:
        raise FaultError(f"The script has the unknown op {', '.join(unknown)[:200]}")
    lasting = [str(one.operation["op"]) for one in steps if one.lasts is not None]
    momentary = sorted(set(lasting) & MOMENTARY)
    if momentary:
        raise FaultError(f"The script says 'for' of what takes no time: {', '.join(momentary)}")
    waiting = sandbox.script.add(steps, now_ms=sandbox.now_ms(), monotonic=wall.monotonic())
    return {"waiting": waiting}


def clear(sandbox: Sandbox) -> None:
    """Undo all that this module did and that can be undone."""
    sandbox.disturbed.clear()
    interventions.end_all(sandbox)
    sandbox.hub.let_go()
    sandbox.script.clear()
    limits(sandbox, {"on": False})
    partial(sandbox, {"on": False})
    key_life(sandbox, {})


def undoing(sandbox: Sandbox, body: Answer, before: int) -> list[Undo]:
    """Return what ends an operation that has just been done; `before` says how many faults there were."""
    operation = str(body.get("op"))
    added: list[Fault] = sandbox.faults.rules[before:]
    withdrawn = [Undo(partial_of(sandbox.faults.withdraw, one)) for one in added]
    if operation == "preset":
        parts = [one for one in PRESETS[str(body.get("name"))] if one["op"] not in MOMENTARY | {"fault", "kill_ws"}]
    else:
        parts = [] if operation == "fault" else [body]
    ends: dict[str, Answer] = {"skew": {"ms": 0}, "legacy": {"mode": "reject"}, "key_life": {}}
    for part in parts:
        name = str(part["op"])
        told = ends.get(name, {**part, "on": False})
        withdrawn.append(_undo(sandbox, name, told))
    return withdrawn


def resume(sandbox: Sandbox, endings: Iterable[Ending], monotonic: float) -> None:
    """
    Bring about, after a restart, the ends of what a script began before it.

    Raises:
        FaultError: One of them ends nothing that outlives a process.
    """
    for one in endings:
        name = str(one.operation.get("op"))
        if name not in _OUTLIVES:
            raise FaultError(
                f"The saved venue should end '{name[:40]}', expected one of {', '.join(sorted(_OUTLIVES))}"
            )
        sandbox.script.undo_later(monotonic + one.seconds, _undo(sandbox, name, one.operation))


def _undo(sandbox: Sandbox, name: str, told: Answer) -> Undo:
    return Undo(partial_of(OPERATIONS[name], sandbox, told), dict(told) if name in _OUTLIVES else None)


def _symbols(sandbox: Sandbox, body: Answer) -> list[str]:
    return [_symbol(sandbox, body)] if body.get("symbol") else list(sandbox.venue.index)


def _symbol(sandbox: Sandbox, body: Answer) -> str:
    symbol = str(body.get("symbol") or "").upper()
    if symbol not in sandbox.venue.index:
        raise FaultError(f"'symbol' expects one of the venue's, was '{symbol[:40]}'")
    return symbol


def _submit(sandbox: Sandbox, symbol: str, side: Side, quantity: Decimal, name: str) -> Answer:
    now_ms = sandbox.advance()
    sandbox.venue.touch(symbol)
    request = OrderRequest(symbol, side, OrderType.MARKET, quantity, client_order_id=name)
    try:
        order = sandbox.venue.exchange.submit(request, now_ms=now_ms)
    except VenueError as error:
        raise FaultError(f"The engine refused: {error}") from error
    finally:
        sandbox.settle()
    return {"client_order_id": name, "filled": str(order.filled)}


OPERATIONS: dict[str, Callable[[Sandbox, Answer], Answer]] = {
    "fault": fault,
    "freeze_ws": freeze,
    "wsfault": ws_fault,
    "black_hole": black_hole,
    "push": push,
    "skew": skew,
    "expire_key": expire_key,
    "key_life": key_life,
    "stale_reads": stale_reads,
    "partial": partial,
    "limits": limits,
    "hold": hold,
    "legacy": legacy,
    "seed": seed,
    "price": price,
    "trade": trade,
    "deposit": deposit,
    "preset": preset,
    "script": script,
    **interventions.OPERATIONS,
}
# What is done and over at once, so that nothing ends it.
MOMENTARY = frozenset(
    {
        "kill_ws",
        "push",
        "expire_key",
        "price",
        "trade",
        "deposit",
        "seed",
        "advance",
        "snapshot",
        "restore",
        "liquidation",
        "adl",
        "delist",
        "log",
        "clear",
        "go_on",
    }
)
# What a script may do beside that: it takes the venue as a whole.
_ALSO = frozenset({"kill_ws", "advance", "snapshot", "restore"})
# Lies in the account's state, and so goes on after a restart.
_OUTLIVES = frozenset(interventions.OPERATIONS) - MOMENTARY
