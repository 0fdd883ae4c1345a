"""The rows of VENUE.md 11 as what a venue does while a worker is stopped: each from the moment of the stop on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from infra.sandbox.presets import PAGE, PRESETS

_ORDER, _ALGO = "/fapi/v1/order", "/fapi/v1/algoOrder"
_UNSEEN: dict[str, Any] = {"op": "wsfault", "drop_user": True}
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")


@dataclass(frozen=True, slots=True)
class Fault:
    """
    One form of a row. `told_to_wait` is for how long the venue wants to hear nothing, on the wall's clock.

    With `kills` the worker is killed as soon as it is halted, whatever it has done by then.
    """

    number: int
    name: str
    operations: tuple[dict[str, Any], ...]
    told_to_wait_s: float = 0.0
    kills: bool = False


def _refuses(code: int, path: str = _ORDER, **more: Any) -> dict[str, Any]:
    return {"op": "fault", "method": "POST", "path": path, "status": 400, "code": code, "times": 3} | more


def _hand(operation: str, side: str, quantity: float) -> tuple[dict[str, Any], ...]:
    return tuple({"op": operation, "symbol": one, "side": side, "quantity": quantity} for one in SYMBOLS[:2])


def _preset(number: int, name: str, *more: dict[str, Any], kills: bool = False) -> Fault:
    return Fault(number, name, PRESETS[name] + more, kills=kills)


FAULTS: tuple[Fault, ...] = (
    _preset(1, "executed-cut-off"),
    *(_preset(1, name) for name in ("executed-504", "executed-503", "executed-408", "executed-silent")),
    Fault(1, "executed-and-unseen", (*PRESETS["executed-cut-off"], _UNSEEN), kills=True),
    _preset(2, "late"),
    Fault(2, "late-and-unseen", (*PRESETS["late"], _UNSEEN)),
    _preset(3, "duplicate"),
    _preset(4, "overload"),
    Fault(5, "told-to-wait", ({"op": "hold", "secs": 2.0, "ban_secs": 3.0, "strikes": 8},), told_to_wait_s=2.0),
    Fault(5, "banned", ({"op": "hold", "secs": 1.0, "ban_secs": 3.0, "strikes": 1},), told_to_wait_s=3.0),
    _preset(6, "waf"),
    _preset(6, "geo", kills=True),
    _preset(6, "wrong-key"),
    Fault(7, "clock-ahead", ({"op": "skew", "ms": 15_000},)),
    Fault(7, "clock-behind", ({"op": "skew", "ms": -15_000},)),
    _preset(8, "stale-reads"),
    Fault(8, "stale-and-unanswered", (*PRESETS["stale-reads"], *PRESETS["executed-cut-off"], _UNSEEN), kills=True),
    Fault(9, "filled-in-part", ({"op": "partial", "frac": 0.5, "times": 2},)),
    Fault(9, "cancel-lost", ({"op": "fault", "method": "DELETE", "path": _ALGO, "action": "exec_then_status",
                              "status": 400, "code": -2011, "times": 4},)),
    Fault(10, "nothing-to-reduce", (_refuses(-2022),)),
    Fault(10, "reduce-only-conflict", (_refuses(-4118),)),
    Fault(11, "stop-would-trigger", (_refuses(-2021, _ALGO),)),
    *(Fault(12, f"refused{code}", (_refuses(code),)) for code in (-4131, -4164, -1111, -4014)),
    Fault(12, "reduce-only-mode", (_refuses(-4400),)),
    Fault(13, "exits-fill-nothing", ({"op": "partial", "frac": 0.0, "times": 2},)),
    Fault(14, "closed-by-hand", _hand("trade", "SELL", 0.02)),
    _preset(15, "reordered", {"op": "price", "symbol": "BTCUSDT", "factor": 0.98}),
    _preset(16, "key-expired"),
    _preset(16, "key-lost"),
    _preset(17, "frozen"),
    *(_preset(17, name) for name in ("malformed", "black-hole", "day-is-over", "handshakes-refused")),
    _preset(18, "reordered"),
    _preset(19, "page"),
    _preset(19, "truncated"),
    _preset(19, "empty"),
    Fault(19, "page-unexecuted", ({"op": "fault", "method": "POST", "path": _ORDER, "status": 200, "body": PAGE},)),
    _preset(20, "maintenance"),
    Fault(21, "liquidation", _hand("liquidation", "SELL", 0.02)),
    Fault(21, "adl", _hand("adl", "SELL", 0.02)),
    Fault(22, "restart", (), kills=True),
    Fault(22, "restart-unanswered", PRESETS["executed-cut-off"], kills=True),
    Fault(23, "leverage-refused", ({"op": "fault", "method": "POST", "path": "/fapi/v1/leverage", "status": 400,
                                    "code": -4048, "times": 1},)),
)  # fmt: skip


def chosen(*, every_form: bool) -> tuple[Fault, ...]:
    """Return all forms of all rows, or one of each row."""
    if every_form:
        return FAULTS
    return tuple({one.number: one for one in reversed(FAULTS)}[number] for number in range(1, 24))
