"""The rows of VENUE.md 11 as a venue brings them about, and the reaction that is stated for each."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

from feature_store.clock import monotonic
from inference.domain.order import Purpose
from inference.domain.trade import ExitReason
from inference.execution.entry_holds import ACCOUNT, REDUCE_ONLY
from infra.prove.fault_story import BTC, ETH, Act, Expect, Row, Story, restart, until
from infra.sandbox.presets import PAGE, PRESETS

_ORDER, _ALGO = "/fapi/v1/order", "/fapi/v1/algoOrder"
_NOTICES_S = 10.0
# Within which a change of the position by another hand is known, once somebody looks.
_ADOPTS_S = 5.0


def _refuses(code: int, path: str = _ORDER, **more: Any) -> dict[str, Any]:
    return {"op": "fault", "method": "POST", "path": path, "status": 400, "code": code, "times": 1} | more


def _preset(number: int, name: str, expect: Expect) -> Row:
    return Row(number, name, begin=PRESETS[name], expect=expect)


def _says(*missing: tuple[bool, str]) -> list[str]:
    return [text for holds, text in missing if not holds]


# -- what must have happened -------------------------------------------------------------------------------------------


def _traded(story: Story) -> list[str]:
    """Entered, protected, left by the clock."""
    result = story.result
    return _says(
        (story.entered, "the trade was not entered"),
        (result is not None and result.reason is ExitReason.TIME_BARRIER, f"it ended by {result and result.reason}"),
    )


def _not_entered(story: Story) -> list[str]:
    sent = story.first.of(Purpose.ENTRY) if story.first else []
    return _says(
        (not story.entered, "it was entered"),
        (len(sent) <= 1, f"{len(sent)} entries were sent"),
    )


def _traded_or_given_up(story: Story) -> list[str]:
    return [] if story.entered else _not_entered(story)


def _ended_by(reason: ExitReason) -> Expect:
    def expect(story: Story) -> list[str]:
        found = story.result and story.result.reason
        return _says((story.entered, "it was not entered"), (found is reason, f"it ended by {found}, not {reason}"))

    return expect


def _held(kind: str) -> Expect:
    """Nothing entered, nothing asked again, and entries are held."""

    def expect(story: Story) -> list[str]:
        return _not_entered(story) + _says(
            (kind in story.notes.get("holds", ()), f"entries are not held ({kind})"),
            (not story.notes.get("again"), "a second entry was let through"),
            (not story.notes.get("asked"), "a second entry was asked for all the same"),
        )

    return expect


def _reopened(story: Story) -> list[str]:
    """The account's stream was given up in time and is open again."""
    return _traded(story) + _noticed(story)


def _noticed(story: Story) -> list[str]:
    seconds = story.notes.get("noticed")
    return _says((seconds is not None, f"the stream's death was not noticed in {_NOTICES_S:g} s"))


def _told_beside(story: Story) -> list[str]:
    """What a dead stream kept to itself was found by looking at the account."""
    return _ended_by(ExitReason.TARGET)(story) + _noticed(story)


def _waited(story: Story) -> list[str]:
    limiter = story.venue.sandbox.limiter
    return _traded(story) + _says(
        (story.notes.get("bans", 1) == story.notes.get("bans_before", 0), f"asked on while told to wait: {limiter}")
    )


# -- what is done while a trade is open --------------------------------------------------------------------------------


def _do(*operations: dict[str, Any]) -> Act:
    async def act(story: Story) -> None:
        for operation in operations:
            await story.venue.do(**operation)
        await asyncio.sleep(0.5)

    return act


async def _again(story: Story) -> None:
    """See what is held, and ask for another trade in another symbol."""
    held = story.desk.executor.door.holds.standing(asyncio.get_running_loop().time())
    story.notes["holds"] = frozenset(held)
    story.notes["again"] = await story.enter(ETH, "again")
    story.notes["asked"] = any(one.symbol == ETH for one in story.desk.executor.book.trades.values())


def _kills_stream(*operations: dict[str, Any], lasts: float = 0.0, stir: bool = False) -> Act:
    """Let the account's stream die, and wait until that was noticed; `stir` lets something happen on the account."""

    async def act(story: Story) -> None:
        stream = story.desk.stream
        assert stream is not None
        before = stream.reconnects
        for operation in operations:
            await story.venue.do(**operation)
        if stir and story.is_protected():
            await story.venue.do(op="price", symbol="BTCUSDT", factor=1.06)
        story.notes["noticed"] = await until(lambda: stream.reconnects > before, _NOTICES_S)
        if lasts:
            await asyncio.sleep(lasts)
        await story.venue.do(op="freeze_ws", on=False)
        await story.venue.do(op="black_hole", on=False)
        await until(lambda: stream.is_connected, 15.0)

    return act


async def _hold(story: Story) -> None:
    """Be told to wait, and be asked to leave meanwhile."""
    limiter = story.venue.sandbox.limiter
    story.notes["bans_before"] = limiter.bans
    await story.venue.do(op="hold", secs=2.0, ban_secs=3.0, strikes=8)
    await asyncio.sleep(2.2)
    story.notes["bans"] = limiter.bans


async def _ban(story: Story) -> None:
    """Be banned at once."""
    await story.venue.do(op="hold", secs=1.0, ban_secs=3.0, strikes=1)
    await asyncio.sleep(3.0)


async def _wick(story: Story) -> None:
    """Let the price go through the stop for one trade."""
    await story.venue.do(op="price", symbol="BTCUSDT", factor=0.94)
    await until(lambda: not story.desk.executor.book.active_in(BTC), 8.0)


async def _wick_in_vain(story: Story) -> None:
    """Let the stop fire into an empty book."""
    await story.venue.do(op="partial", frac=0.0, times=1)
    await _wick(story)


def _by_another_hand(operation: str, *, share: str = "1", **more: Any) -> Act:
    async def act(story: Story) -> None:
        held = story.venue.sandbox.venue.exchange.state.open_positions()
        mine = next((one for one in held if one.symbol == "BTCUSDT"), None)
        if mine is None:
            return
        quantity = abs(mine.quantity) * Decimal(share)
        side = "SELL" if mine.quantity > 0 else "BUY"
        await story.venue.do(op=operation, symbol="BTCUSDT", side=side, quantity=float(quantity), **more)
        await until(lambda: not story.desk.executor.book.active_in(BTC), 3.0)

    return act


async def _halve(story: Story) -> None:
    """Somebody closes half by hand; what the worker does on a timer, looking at the account, is done here."""
    await _by_another_hand("trade", share="0.5")(story)
    ends = monotonic() + _ADOPTS_S
    while (trade := story.first) is not None and monotonic() < ends:
        await story.desk.executor.reconcile()
        if trade.external:
            break
        await asyncio.sleep(0.1)
    # A stop of another size comes to rest before the one of before is cancelled.
    await until(story.is_protected, _ADOPTS_S)
    if (trade := story.first) is not None:
        stops = sum(one.remaining for one in trade.of(Purpose.STOP) if one.is_live)
        story.notes["halved"] = (trade.entered, trade.external, trade.open_quantity, stops)


def _halved(story: Story) -> list[str]:
    """The venue is right: half is somebody else's doing, the rest stays on its stop and ends by the clock."""
    if "halved" not in story.notes:
        return ["nothing was halved"]
    entered, external, left, stops = story.notes["halved"]
    return _traded(story) + _says(
        (external == left == entered / 2, f"of {entered}, {external} was adopted as another's and {left} is left"),
        (stops >= left > 0, f"of the {left} that is left, {stops} rests on a stop"),
    )


async def _outage(story: Story) -> None:
    """Maintenance with a trade open: entries wait, the stop stays where it is."""
    for operation in PRESETS["maintenance"]:
        await story.venue.do(**operation)
    story.notes["again"] = await story.enter(ETH, "again")
    await asyncio.sleep(1.0)
    story.notes["protected"] = story.is_protected() and story.venue.audit()["open_algo_orders"] > 0


def _kept(story: Story) -> list[str]:
    return _says(
        (story.entered, "the trade was not entered"),
        (not story.notes.get("again"), "something was entered during the maintenance"),
        (bool(story.notes.get("protected")), "the stop did not stay"),
    )


async def _elsewhere(story: Story) -> None:
    """Another symbol is traded as ever."""
    story.notes["again"] = await story.enter(ETH, "again")


def _only_there(story: Story) -> list[str]:
    return _not_entered(story) + _says((bool(story.notes.get("again")), "the other symbol is blocked too"))


def _half(story: Story) -> list[str]:
    trade = story.first
    part = trade is not None and 0 < trade.entered < trade.plan.quantity
    return _traded(story) + _says((part, "nothing was filled in part"))


# What the account's stream would have told is not told either, so that only asking helps.
_UNSEEN = ({"op": "wsfault", "drop_user": True},)
_LEVERAGE = {"op": "fault", "method": "POST", "path": "/fapi/v1/leverage", "status": 400, "times": 1}
ROWS: tuple[Row, ...] = (
    *(_preset(1, name, _traded) for name in ("executed-504", "executed-503", "executed-408", "executed-cut-off")),
    _preset(1, "executed-silent", _traded),
    Row(1, "executed-and-unseen", begin=PRESETS["executed-cut-off"] + _UNSEEN, expect=_traded),
    _preset(2, "late", _traded),
    Row(2, "late-and-unseen", begin=PRESETS["late"] + _UNSEEN, expect=_traded),
    _preset(3, "duplicate", _traded),
    Row(4, "overload", act=_do(*PRESETS["overload"]), expect=_traded),
    Row(4, "overload-from-the-start", begin=PRESETS["overload"], expect=_not_entered),
    Row(5, "told-to-wait", act=_hold, expect=_waited),
    Row(5, "banned", act=_ban, expect=_traded),
    Row(6, "waf", begin=PRESETS["waf"], act=_again, expect=_held(ACCOUNT)),
    Row(6, "geo", begin=PRESETS["geo"], act=_again, expect=_held(ACCOUNT)),
    Row(6, "wrong-key", begin=PRESETS["wrong-key"], act=_again, expect=_held(ACCOUNT)),
    Row(7, "clock-ahead", begin=({"op": "skew", "ms": 15_000},), expect=_traded),
    Row(7, "clock-behind", begin=({"op": "skew", "ms": -15_000},), expect=_traded),
    _preset(8, "stale-reads", _traded),
    Row(8, "stale-and-unanswered", begin=PRESETS["stale-reads"] + PRESETS["executed-cut-off"] + _UNSEEN,
        expect=_traded),
    Row(9, "filled-in-part", begin=({"op": "partial", "frac": 0.5, "times": 1},), expect=_half),
    Row(9, "cancel-lost", begin=({"op": "fault", "method": "DELETE", "path": _ALGO, "action": "exec_then_status",
                                  "status": 400, "code": -2011, "times": 2},), expect=_traded),
    Row(10, "nothing-to-reduce", act=_do(_refuses(-2022)), expect=_traded),
    Row(10, "reduce-only-conflict", act=_do(_refuses(-4118)), expect=_traded),
    Row(11, "stop-would-trigger", begin=(_refuses(-2021, _ALGO),), expect=_ended_by(ExitReason.STOP)),
    *(Row(12, f"refused{code}", begin=(_refuses(code),), expect=_not_entered) for code in (-4131, -4164, -1111, -4014)),
    Row(12, "reduce-only-mode", begin=(_refuses(-4400),), act=_again, expect=_held(REDUCE_ONLY)),
    Row(13, "stop-fires-in-vain", act=_wick_in_vain, expect=_ended_by(ExitReason.STOP_UNFILLED)),
    Row(14, "orphans", act=_by_another_hand("trade"), expect=_ended_by(ExitReason.EXTERNAL)),
    Row(15, "stop-fires-reordered", begin=PRESETS["reordered"], act=_wick, expect=_ended_by(ExitReason.STOP)),
    Row(16, "key-expired", act=_kills_stream(*PRESETS["key-expired"]), expect=_reopened),
    Row(16, "key-lost", act=_kills_stream(*PRESETS["key-lost"]), expect=_reopened),
    Row(17, "frozen", act=_kills_stream(*PRESETS["frozen"], stir=True), expect=_told_beside),
    Row(17, "malformed", act=_kills_stream(*PRESETS["malformed"]), expect=_reopened),
    Row(17, "black-hole", act=_kills_stream(*PRESETS["black-hole"], lasts=0.5), expect=_reopened),
    Row(17, "day-is-over", act=_kills_stream(*PRESETS["day-is-over"]), expect=_reopened),
    Row(17, "handshakes-refused", act=_kills_stream(*PRESETS["handshakes-refused"]), expect=_reopened),
    _preset(18, "reordered", _traded),
    _preset(19, "page", _traded),
    _preset(19, "truncated", _traded),
    _preset(19, "empty", _traded),
    Row(19, "page-unexecuted", begin=({"op": "fault", "method": "POST", "path": _ORDER, "status": 200, "body": PAGE},),
        expect=_traded_or_given_up),
    Row(20, "maintenance", act=_outage, expect=_kept),
    Row(21, "liquidation", act=_by_another_hand("liquidation"), expect=_ended_by(ExitReason.EXTERNAL)),
    Row(21, "adl", act=_by_another_hand("adl"), expect=_ended_by(ExitReason.EXTERNAL)),
    Row(21, "halved-by-hand", act=_halve, expect=_halved),
    Row(22, "restart", act=restart, expect=_traded),
    Row(22, "restart-unanswered", begin=PRESETS["executed-cut-off"], act=restart, expect=_traded),
    Row(23, "leverage-unchanged", begin=(_LEVERAGE | {"code": -4046},), expect=_traded),
    Row(23, "leverage-refused", begin=(_LEVERAGE | {"code": -4048},), act=_elsewhere, expect=_only_there),
)  # fmt: skip
