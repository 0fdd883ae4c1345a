"""What real venues do to their clients, by name: each is a list of what the control plane is asked to do."""

from __future__ import annotations

from typing import Any, Final

PAGE: Final = "<html><body>The server is busy</body></html>"
# Of contracts, and of spot.
_ORDERS: Final = ("/fapi/v1/order", "/fapi/v1/algoOrder", "/api/v3/order")


def _sends(**fault: Any) -> tuple[dict[str, Any], ...]:
    return tuple({"op": "fault", "method": "POST", "path": path, "times": 1} | fault for path in _ORDERS)


PRESETS: Final[dict[str, tuple[dict[str, Any], ...]]] = {
    "executed-504": _sends(action="exec_then_status", status=504, body=""),
    "executed-503": _sends(action="exec_then_status", status=503, code=-1000),
    "executed-408": _sends(action="exec_then_status", status=408, code=-1007),
    "executed-cut-off": _sends(action="exec_then_drop"),
    "executed-silent": _sends(action="exec_then_hang", secs=2.5),
    "late": _sends(action="late_exec", secs=1.0, status=503, code=-1007),
    "duplicate": _sends(action="exec_then_status", status=400, code=-4116),
    "overload": ({"op": "fault", "method": "POST", "path": "api/v", "status": 503, "code": -1008, "p": 1.0,
                  "spare_reduce_only": True},),
    "rate-limit": ({"op": "hold", "secs": 2.0, "ban_secs": 4.0},),
    "waf": ({"op": "fault", "method": "POST", "path": "", "status": 403, "body": PAGE, "p": 1.0},),
    "geo": ({"op": "fault", "method": "POST", "path": "", "status": 451, "body": PAGE, "p": 1.0},),
    "wrong-key": ({"op": "fault", "method": "POST", "path": "api/v", "status": 401, "code": -2015, "p": 1.0},),
    "skew": ({"op": "skew", "ms": 15_000},),
    "stale-reads": ({"op": "stale_reads", "secs": 3.0},),
    "page": _sends(action="exec_then_status", status=200, body=PAGE),
    "truncated": _sends(action="exec_then_truncate"),
    "empty": _sends(action="exec_then_status", status=200, body=""),
    "maintenance": ({"op": "maintenance"},
                    {"op": "fault", "path": "api/v", "status": 503, "body": PAGE, "p": 0.5}),
    "frozen": ({"op": "freeze_ws"},),
    "malformed": ({"op": "push", "frame": '{"e":"kline",'},),
    "empty-frame": ({"op": "push", "frame": "[]"},),
    "kline-without-k": ({"op": "push", "frame": '{"e":"kline","E":1,"s":"BTCUSDT"}', "to": "market"},),
    "reordered": ({"op": "wsfault", "dup": True, "reverse": True},),
    "handshakes-refused": ({"op": "wsfault", "handshake": 429, "times": 2, "secs": 1.0}, {"op": "kill_ws"}),
    "black-hole": ({"op": "black_hole"},),
    "day-is-over": ({"op": "kill_ws"},),
    "key-expired": ({"op": "expire_key"},),
    "key-lost": ({"op": "expire_key", "silent": True},),
}  # fmt: skip
