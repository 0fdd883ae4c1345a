"""The one page a person looks at: plain, self-contained, offline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from infra.sandbox.engine.margin import mark_of
from infra.sandbox.streams import Hub
from infra.sandbox.venue import Venue

_STYLE = """
:root { color-scheme: light dark }
body { font: 14px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 72rem; padding: 0 1rem }
h1 { font-size: 1.3rem; margin: 0 } h2 { font-size: 1rem; margin: 1.6rem 0 .4rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: right; padding: .15rem .6rem; white-space: nowrap }
th:first-child, td:first-child { text-align: left } thead th { border-bottom: 1px solid #8886; font-weight: 600 }
tbody tr:nth-child(even) { background: #8881 } td { font-variant-numeric: tabular-nums }
.facts { display: flex; flex-wrap: wrap; gap: .3rem 1.6rem; margin: .6rem 0 } .facts b { font-weight: 600 }
.none { opacity: .6 } .wide { overflow-x: auto }
"""


def render(status: dict[str, Any], venue: Venue, hub: Hub) -> str:
    """Write the page; it reloads itself every two seconds."""
    account = venue.exchange.margin()
    state = venue.exchange.state
    facts = {
        "venue time": _time(status["now_ms"]),
        "speed": f"{status['speed']:g} x",
        "market": f"{status['market']}, seed {status['seed']}" + (", HALTED" if status["halted"] else ""),
        "wallet": f"{account.wallet:,.2f} USDT",
        "equity": f"{account.balance:,.2f} USDT",
        "available": f"{account.available:,.2f} USDT",
        "round trips": len(state.trips),
        "sockets": len(hub.sockets()),
    }
    positions = [
        (
            one.symbol,
            one.position_side.value,
            f"{one.quantity:f}",
            f"{one.entry_price:.8g}",
            f"{mark_of(state, one.symbol):f}",
            f"{one.unrealized(mark_of(state, one.symbol)):+,.2f}",
        )
        for one in state.open_positions()
    ]
    orders = [
        (o.symbol, o.type.value, o.side.value, f"{o.quantity:f}", f"{o.price:f}", o.client_order_id)
        for o in venue.exchange.open_orders()
    ]
    orders += [
        (
            a.symbol,
            a.type.value,
            a.side.value,
            "all" if a.close_position else f"{a.quantity:f}",
            f"{a.trigger_price:f}",
            a.client_algo_id,
        )
        for a in venue.exchange.open_algos()
    ]
    fills = [
        (
            t.symbol,
            _time(t.time_ms),
            t.side.value,
            f"{t.quantity:f}",
            f"{t.price:f}",
            f"{t.fee:.4f}",
            f"{t.realized_pnl:+,.4f}",
        )
        for t in reversed(state.trades[-30:])
    ]
    prices = [
        (one.symbol, f"{one.price(int(venue.last[place])):f}", "trading" if venue.last[place] else "no price yet")
        for place, one in enumerate(venue.market.instruments)
    ]
    body = "".join(
        (
            "<h1>Sandbox exchange</h1>",
            '<div class="facts">',
            *(f"<span>{escape(name)} <b>{escape(str(value))}</b></span>" for name, value in facts.items()),
            "</div>",
            _table("Positions", ("symbol", "side", "quantity", "entry", "mark", "unrealized"), positions),
            _table("Open orders", ("symbol", "type", "side", "quantity", "price", "client id"), orders),
            _table("Last fills", ("symbol", "time", "side", "quantity", "price", "fee", "realized"), fills),
            _table("Prices", ("symbol", "last", "state"), prices),
        )
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="2">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Sandbox exchange</title><style>{_STYLE}</style></head><body>{body}</body></html>"
    )


def _table(title: str, head: Iterable[str], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return f'<h2>{escape(title)}</h2><p class="none">none</p>'
    heading = "".join(f"<th>{escape(one)}</th>" for one in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<h2>{escape(title)}</h2><div class="wide"><table><thead><tr>{heading}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
