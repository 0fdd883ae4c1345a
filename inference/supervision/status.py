"""The worker's live status: one JSON file, replaced whole, for whoever watches."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from feature_store.json_text import UNREADABLE


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The model that trades."""

    version: str
    digest: str
    gated: bool
    source: str
    loaded_at: str


class PositionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One open position."""

    symbol: str
    direction: str
    quantity: str
    entry_price: str
    notional: str
    entry_time_ms: int
    trade_id: str


class SignalStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The newest opinion of one symbol, and what was decided."""

    symbol: str
    direction: str
    confidence: float
    expected_return: float
    consensus: int
    outcome: str
    candle_close_ms: int


class ShadowStatus(msgspec.Struct, frozen=True, kw_only=True):
    """
    The challenger that is scored beside what trades.

    `place` is inside, beside or off; `state` is waiting, scoring or degraded, and `reason` says why. `skipped` counts
    candles that were passed over, by cause.
    """

    place: str
    state: str
    reason: str
    version: str | None = None
    digest: str | None = None
    candles: int = 0
    last_close_ms: int | None = None
    skipped: Mapping[str, int] = {}
    latency_ms: Mapping[str, float | None] = {}


class BiasStatus(msgspec.Struct, frozen=True, kw_only=True):
    """
    How far the newest signals lean to one side.

    `found` says whether that is a bias, `mode` what follows from one: observe or enforce. The figures are those of
    `inference.domain.bias.SignalBias`; there are none until a candle brought a signal.
    """

    mode: str
    window: int
    found: bool = False
    side: str | None = None
    share: float | None = None
    usual: float | None = None
    limit: float | None = None
    candles: int = 0


class QualityStatus(msgspec.Struct, frozen=True, kw_only=True):
    """
    What became of the newest opinions of the model that trades, traded or not, at the end of their horizon.

    The figures are those of `inference.supervision.prediction_quality.PredictionQuality`. `evidence` against the
    opinions, after so many independent `outcomes`, calls them poor at `limit`; `poor_by` names the measure while they
    are. `fallback` is what is done about them: none, shrink, stop or back.
    """

    right: float
    stated: float
    brier: float
    candles: int
    outcomes: int = 0
    evidence: float = 1.0
    limit: float = 0.0
    poor_by: str | None = None
    fallback: str = "none"


class MemberStatus(msgspec.Struct, frozen=True, kw_only=True):
    """
    What one member of the ensemble answered since the start, `ensemble` being all of them together.

    The counts are those of `inference.supervision.member_counts.Answers`; `seconds` is the time that it took for
    the answers of so many `candles`.
    """

    predictions: int
    not_finite: int
    voted: int
    agreed: int
    seconds: float
    candles: int = 0
    latency_ms: Mapping[str, float | None] = {}


class PolicyStatus(msgspec.Struct, frozen=True, kw_only=True):
    """
    The version of the policy in force: its number in the store, who made it and why.

    `fault` is the code of what is wrong with the store while entries wait for it, and `found` says it in words.
    """

    version: int | None
    fingerprint: str
    author: str = ""
    reason: str = ""
    fault: str | None = None
    found: str = ""


class HoldStatus(msgspec.Struct, frozen=True, kw_only=True):
    """
    Entries that are held back by what the venue said, or while the event bus is down.

    `what` is the account, reduce-only, a symbol or the bus, `because` the code, `seconds_left` how long it still lasts.
    """

    what: str
    because: str
    seconds_left: float


class BusStatus(msgspec.Struct, frozen=True, kw_only=True):
    """
    How far the journal is told to the event bus.

    `where` is local or redis, `required` whether entries need it. `published_seq` is the newest journal entry that it
    took, `published` how many events since the start, `waiting_seconds` how long something has waited for it, `late`
    whether that is longer than allowed, `trouble` what keeps it. `refills` counts how often it had lost what it knew.
    """

    where: str
    required: bool
    published_seq: int = 0
    published: int = 0
    waiting_seconds: float = 0.0
    late: bool = False
    trouble: str = ""
    refills: int = 0


class StopStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One emergency stop that stands: who set it off, why, and whether all that it asks for is done."""

    key: str
    evaluator: str
    reason: str
    at: str
    by: str
    done: bool


class RiskStatus(msgspec.Struct, frozen=True, kw_only=True):
    """
    What risk looks at beside the account; money is quote currency, drawdowns are fractions.

    `missing` names evaluators of the emergency stop without an input. `breaker_until_ms` is venue time.
    """

    emergency_brake_active: bool
    stops: tuple[StopStatus, ...] = ()
    missing: str = ""
    breaker: str = "CLOSED"
    breaker_reason: str = ""
    breaker_until_ms: int = 0
    daily_pnl: str | None = None
    weekly_pnl: str | None = None
    daily_drawdown: float | None = None
    weekly_drawdown: float | None = None
    max_drawdown: float | None = None
    open_positions: int = 0
    total_exposure: str = "0"
    heat: str = "0"
    clusters: int = 0
    orders_refused_in_row: int = 0


class HealthStatus(msgspec.Struct, frozen=True, kw_only=True):
    """
    How well the worker is: OPTIMAL, HEALTHY, DEGRADED, CRITICAL or EMERGENCY, and what keeps it from the best.

    `seconds` is how long ago the journal was last told of a change.
    """

    level: str
    reasons: tuple[str, ...] = ()
    seconds: float = 0.0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the worker says of itself.

    `state` is starting, idle, trading, halted or stopped; `reason` says why in a sentence. Money is quote currency.
    """

    state: str
    reason: str
    trading_state: str
    pid: int
    mode: str
    venue: str
    updated_at: str
    venue_time_ms: int | None = None
    clock_rate: float = 1.0
    model: ModelStatus | None = None
    symbols: int = 0
    equity: str | None = None
    positions: tuple[PositionStatus, ...] = ()
    last_signals: tuple[SignalStatus, ...] = ()
    refusals: Mapping[str, int] = {}
    orders: Mapping[str, int] = {}
    closed_trades: int = 0
    realized_pnl: str = "0"
    fees: str = "0"
    # Received for holding positions, negative where more was paid; `realized_pnl` knows nothing of it.
    funding: str = "0"
    candles_processed: int = 0
    batches_processed: int = 0
    decision_latency_ms: Mapping[str, float | None] = {}
    # From sending an order until the venue said that it has it.
    order_latency_ms: Mapping[str, float | None] = {}
    cold_start_s: float | None = None
    rss_mb: float | None = None
    journal_entries: int = 0
    # Candles by stream and by REST, connections and how many are silent, and how late candles come (ms of the venue).
    feed: Mapping[str, float] = {}
    # Endpoints that are not well, requests kept back so far, and how long the venue wants to hear nothing.
    transport: Mapping[str, float] = {}
    shadow: ShadowStatus | None = None
    bias: BiasStatus | None = None
    quality: QualityStatus | None = None
    policy: PolicyStatus | None = None
    holds: tuple[HoldStatus, ...] = ()
    members: Mapping[str, MemberStatus] = {}
    bus: BusStatus | None = None
    risk: RiskStatus | None = None
    health: HealthStatus | None = None
    # Where Prometheus finds this, or None.
    metrics: str | None = None


def write_status(path: Path, status: Status) -> None:
    """Replace the status file; a reader sees the old one or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(status), indent=1))
    temporary.replace(path)


def read_status(path: Path) -> Status | None:
    """Return the last status that was written, or None where there is none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Status)
    except (OSError, *UNREADABLE):
        return None
