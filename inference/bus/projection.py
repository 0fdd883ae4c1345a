"""Which events follow from a journal entry: pure, and the same each time, so that publishing again doubles nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from inference.bus.catalogue import said_by
from inference.bus.envelope import Envelope, EventError, encode, event_id_of, iso
from inference.domain.decision import DenyCode
from inference.journal.codec import Entry

Data = Mapping[str, Any]
_Told = tuple[str, Data, str]  # type, data, trace id

CANDLES_CLOSED = "market.candles_closed"
LEFT_OUT = "health.event_left_out"
_LATEST_MS = 253_402_300_799_999  # The last millisecond of the year 9999.
# Refusals by the account or by all positions together, rather than by one signal, symbol or size.
_LIMITS = (
    # These were told first, and stay first: an event's id counts those of its type.
    DenyCode.DAILY_DRAWDOWN,
    DenyCode.MAX_POSITIONS,
    DenyCode.EXPOSURE_ABOVE_MAXIMUM,
    DenyCode.HEAT_ABOVE_MAXIMUM,
    DenyCode.EMERGENCY_STOP,
    DenyCode.RISK_INPUT_MISSING,
    DenyCode.TRADING_STATE,
    DenyCode.BREAKER_OPEN,
    DenyCode.WEEKLY_DRAWDOWN,
    DenyCode.PEAK_DRAWDOWN,
    DenyCode.OUTSIDE_TRADING_WINDOW,
    DenyCode.GLOBAL_COOLDOWN,
    DenyCode.ENTRY_COUNT,
    DenyCode.CONCENTRATION_ABOVE_MAXIMUM,
    DenyCode.CORRELATED_ABOVE_MAXIMUM,
    DenyCode.BETA_ABOVE_MAXIMUM,
    DenyCode.VETO_CORRELATION,
    DenyCode.VETO_DRAWDOWN,
    DenyCode.COMMITTEE_VETO,
    DenyCode.COMMITTEE_CAP,
)
_CANDLE = ("open_time_ms", "open", "high", "low", "close", "volume")
_FIRST_LIMITS = _LIMITS[:4]
_RANKED_BY = ("worth", "score", "companions")

# What only the journal's readers can use, and is most of an entry's length.
_LEFT_OUT = {"signal.features_used": ("facts", "digests", "added")}


def events_of(entry: Entry, journal: str) -> tuple[Envelope, ...]:
    """Return the events that an entry of a journal becomes, the entry's own type last; each has its own stable id."""
    data = entry.data
    try:
        told = list(_FOLLOWING.get(entry.type, _nothing)(data, entry))
        told.append((entry.type, _OWN.get(entry.type, _as_it_is)(data, entry), entry.trace_id))
    except (KeyError, TypeError, ValueError, AttributeError, msgspec.DecodeError):
        # An entry of another version: what it says goes out as it was written.
        told = [(entry.type, data, entry.trace_id)]
    moment = iso(min(max(entry.timestamp_ms, 0), _LATEST_MS))
    counted: Counter[str] = Counter()
    events = []
    for event_type, one, trace_id in told:
        # By type, so that another kind that may follow one day changes no id of today.
        event_id = event_id_of(entry.digest, event_type, counted[event_type])
        counted[event_type] += 1
        envelope = Envelope(
            event_id=event_id,
            event_type=event_type,
            timestamp=moment,
            trace_id=trace_id,
            source=said_by(event_type),
            data=one,
            journal=journal,
            journal_seq=entry.seq,
        )
        events.append(_fitting(envelope))
    return tuple(events)


def _fitting(envelope: Envelope) -> Envelope:
    """Return an event that the bus takes: one that it would refuse must not keep back all that come after it."""
    try:
        encode(envelope)
    except EventError as error:
        told = {"type": envelope.event_type[:200], "left_out": str(error)[:300]}
        return msgspec.structs.replace(envelope, event_type=LEFT_OUT, source=said_by(LEFT_OUT), data=told)
    return envelope


def _nothing(_: Data, __: Entry) -> Iterable[_Told]:
    return ()


def _as_it_is(data: Data, entry: Entry) -> Data:
    left_out = _LEFT_OUT.get(entry.type)
    return data if left_out is None else {name: value for name, value in data.items() if name not in left_out}


def _candles_closed(data: Data, _: Entry) -> Data:
    return {
        "close_time_ms": _number(data.get("close_time_ms")),
        "timeframe": data.get("timeframe", ""),
        "symbols": _words(data, "symbols"),
        "late_ms": _number(data.get("late_ms")),
    }


def _of_candles(data: Data, _: Entry) -> Iterable[_Told]:
    moment = {"close_time_ms": _number(data.get("close_time_ms")), "timeframe": data.get("timeframe", "")}
    # Entries of before do not hold them.
    if text := data.get("candles"):
        rows = msgspec.json.decode(str(text), type=dict[str, tuple[int, float, float, float, float, float]])
        candles = {symbol: dict(zip(_CANDLE, row, strict=True)) for symbol, row in rows.items()}
        yield "market.kline", {**moment, "candles": candles}, ""
    if late := _words(data, "late"):
        yield "market.candles_late", {**moment, "symbols": late}, ""
    if filled := _words(data, "filled"):
        pairs = (word.rpartition("=") for word in filled)
        yield "market.gap_filled", {**moment, "candles": {symbol: _number(count) for symbol, _, count in pairs}}, ""


def _decided(data: Data, _: Entry) -> Data:
    snapshot = data.get("snapshot", {})
    return {
        "candle_close_ms": snapshot.get("candle_close_ms"),
        "trading_state": snapshot.get("trading_state"),
        "candidates": len(snapshot.get("candidates", ())),
        "approved": [one["symbol"] for one in data.get("approved", ())],
        "denied": dict(Counter(one["code"] for one in data.get("denied", ()))),
    }


def _of_decision(data: Data, _: Entry) -> Iterable[_Told]:
    snapshot = data.get("snapshot", {})
    close = {"candle_close_ms": snapshot.get("candle_close_ms")}
    for candidate in snapshot.get("candidates", ()):
        signal = candidate["signal"]
        yield "signal.generated", {**_signal(signal), **close}, signal["trace_id"]
    approved, denied = data.get("approved", ()), data.get("denied", ())
    for one in approved:
        told = {"symbol": one["symbol"], "passed": True, "code": "", "context": {}, **close}
        yield "signal.filtered", told, one["signal"]["trace_id"]
    limits: dict[str, list[Data]] = {}
    for one in denied:
        told = {"symbol": one["symbol"], "passed": False, "code": one["code"], "context": one["context"], **close}
        yield "signal.filtered", told, (one.get("signal") or {}).get("trace_id", "")
        if one["code"] in _LIMITS:
            limits.setdefault(one["code"], []).append(one)
    # By what they were ranked, where that was more than the net edge.
    places = {one["trace_id"]: {name: one[name] for name in _RANKED_BY} for one in data.get("ranking", ())}
    ranking = [
        {
            "rank": rank,
            **_signal(one["signal"]),
            "quantity": one["quantity"],
            "reference_price": one["reference_price"],
            **places.get(one["signal"]["trace_id"], {}),
        }
        for rank, one in enumerate(approved, start=1)
    ]
    yield "signal.ranked", {"ranking": ranking, **close}, ""
    for code in sorted(limits, key=lambda one: one not in _FIRST_LIMITS):
        refused = limits[code]
        symbols = [one["symbol"] for one in refused]
        yield (
            "risk.candidates_refused",
            {"code": code, "symbols": symbols, "context": refused[0]["context"], **close},
            "",
        )
    if quotes := snapshot.get("quotes"):
        prices = {
            symbol: {name: quote[name] for name in ("bid", "ask", "event_time_ms")} for symbol, quote in quotes.items()
        }
        yield "market.tick", {"quotes": prices, **close}, ""


def _signal(signal: Data) -> dict[str, Any]:
    # What a bundle does not tell, or nobody looked at, is left out.
    told = {name: signal[name] for name in ("regime_probability", "quality") if name in signal}
    return told | {
        "symbol": signal["symbol"],
        "direction": signal["direction"],
        "confidence": signal["probability"],
        "expected_return": signal["expected_return"],
        "consensus": signal["consensus"],
        "regime": signal.get("regime", "unknown"),
        "model": signal["model_version"],
    }


def _of_plan(data: Data, _: Entry) -> Iterable[_Told]:
    plan = data["plan"]
    yield "trade.created", dict(plan), plan["trace_id"]


def _of_fill(data: Data, entry: Entry) -> Iterable[_Told]:
    fill = data["fill"]
    told = {name: fill[name] for name in ("symbol", "side", "quantity", "price", "client_order_id")}
    yield "trade.updated", {**told, "because": "filled"}, entry.trace_id


def _of_found(data: Data, entry: Entry) -> Iterable[_Told]:
    told = {name: data[name] for name in ("symbol", "trade_id", "open_quantity", "price")}
    yield "trade.updated", {**told, "because": "found changed"}, entry.trace_id


def _words(data: Data, name: str) -> list[str]:
    return [word for word in str(data.get(name, "")).split(",") if word]


def _number(text: object) -> int:
    return int(str(text)) if text is not None else 0


_OWN: dict[str, Callable[[Data, Entry], Data]] = {CANDLES_CLOSED: _candles_closed, "signal.decided": _decided}
_FOLLOWING: dict[str, Callable[[Data, Entry], Iterable[_Told]]] = {
    CANDLES_CLOSED: _of_candles,
    "signal.decided": _of_decision,
    "trade.planned": _of_plan,
    "trade.filled": _of_fill,
    "risk.position_found_changed": _of_found,
}
