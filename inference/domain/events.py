"""What happened, in the past tense; the journal's entries and the only input of every rebuild."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from msgspec import UNSET, UnsetType

from inference.domain.decision import Approved, Decision, Denied, RankedSignal, Snapshot
from inference.domain.exit_state import Seen
from inference.domain.order import Fill, OrderIntent, OrderReport, OrderType
from inference.domain.policy import Policy
from inference.domain.shadow import ShadowScored
from inference.domain.trade import ExitReason, TradePlan, TradeResult


@dataclass(frozen=True, slots=True, kw_only=True)
class CandlesDecided:
    """One closed candle taken through the decision chain: all that was looked at, and all that was answered."""

    event_type: ClassVar[str] = "signal.decided"
    now_ms: int
    policy: Policy
    snapshot: Snapshot
    approved: tuple[Approved, ...]
    denied: tuple[Denied, ...]
    # Which version of the store it was; unset where the policy came from no store.
    policy_version: int | UnsetType = UNSET
    policy_fingerprint: str | UnsetType = UNSET
    # All candidates in their order; there only where they are ranked by risk.
    ranking: tuple[RankedSignal, ...] | UnsetType = UNSET

    @classmethod
    def of(
        cls,
        snapshot: Snapshot,
        policy: Policy,
        now_ms: int,
        decisions: Iterable[Decision],
        ranking: tuple[RankedSignal, ...] | UnsetType = UNSET,
    ) -> CandlesDecided:
        """Return the event that records these answers with everything they were made from."""
        given = tuple(decisions)
        return cls(
            now_ms=now_ms,
            policy=policy,
            snapshot=snapshot,
            approved=tuple(one for one in given if isinstance(one, Approved)),
            denied=tuple(one for one in given if isinstance(one, Denied)),
            ranking=ranking,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedInputs:
    """
    What a decision read beside the inputs made of the 49: features of one's own, and those of others.

    `values` holds the inputs of each row under `names`, `facts` for each row what had arrived of each of `peers`, the
    included symbols, as `feature_store.features.digests` packs them. `fingerprint` names everything that models read.
    """

    fingerprint: str
    names: tuple[str, ...]
    peers: tuple[str, ...]
    facts: bytes
    values: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FeaturesUsed:
    """
    The rows of features that a decision read, as digests: what they were can be recomputed, whether they were it shows.

    One row for each of `symbols`. `facts` holds what their states say of the candles behind them, `digests` 16 bits of
    each feature, 64 of the row and 64 of the model inputs, as `feature_store.features.digests` packs them: about 170
    bytes of journal for each symbol and candle. `fingerprint` names the feature set, `code` what computed it. `added`
    is there only where models read more.
    """

    event_type: ClassVar[str] = "signal.features_used"
    candle_close_ms: int
    venue: str
    timeframe: str
    fingerprint: str
    code: str
    symbols: tuple[str, ...]
    facts: bytes
    digests: bytes
    added: AddedInputs | UnsetType = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalExplained:
    """
    What the inputs of an approved entry were, and what they did.

    `parts` says for each member, and for the `ensemble`, by how much an input moved its expected log return, the
    largest of them, as `inference.models.contributions` measures it.
    """

    event_type: ClassVar[str] = "signal.explained"
    trace_id: str
    symbol: str
    inputs: Mapping[str, float]
    parts: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TradePlanned:
    """An approved entry became a trade; nothing is sent yet."""

    event_type: ClassVar[str] = "trade.planned"
    plan: TradePlan


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderIntended:
    """An order is about to be sent; from here on it may exist at the venue."""

    event_type: ClassVar[str] = "trade.order_intended"
    intent: OrderIntent


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderReported:
    """The venue said something new of an order."""

    event_type: ClassVar[str] = "trade.order_reported"
    report: OrderReport


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRefused:
    """The venue proved that it did not accept an order."""

    event_type: ClassVar[str] = "trade.order_refused"
    client_order_id: str
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderFoundAbsent:
    """The venue has no such order and can no longer execute our request for it."""

    event_type: ClassVar[str] = "trade.order_found_absent"
    client_order_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FillBooked:
    """
    One execution was booked; booking it twice changes nothing.

    `slippage` is what its price was worse than the price its order was decided at, as a fraction of that one; below
    zero it was better. UNSET where that price is not known.
    """

    event_type: ClassVar[str] = "trade.filled"
    fill: Fill
    order_type: OrderType | UnsetType = UNSET
    slippage: Decimal | UnsetType = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRequested:
    """A trade is to end now; the first reason stays."""

    event_type: ClassVar[str] = "trade.exit_requested"
    trade_id: str
    reason: ExitReason
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitObserved:
    """Something was seen that changed what is wanted of a trade's exits; what changes nothing is not recorded."""

    event_type: ClassVar[str] = "trade.exit_observed"
    trade_id: str
    seen: Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionFoundChanged:
    """
    The venue holds another quantity than the trade's fills explain; the venue is right.

    `open_quantity` is what it holds in the trade's direction; `price` and `fees` are what the difference was traded
    at and cost, as far as that is known.
    """

    event_type: ClassVar[str] = "risk.position_found_changed"
    trade_id: str
    symbol: str
    open_quantity: Decimal
    price: Decimal
    fees: Decimal = Decimal(0)
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeClosed:
    """A trade is flat, its orders are gone and its money is counted."""

    event_type: ClassVar[str] = "trade.closed"
    trade_id: str
    result: TradeResult


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountMarked:
    """Equity at a moment, with the marks that drawdowns are measured from."""

    event_type: ClassVar[str] = "risk.account_marked"
    equity: Decimal
    day_start_equity: Decimal
    peak_equity: Decimal
    week_start_equity: Decimal | UnsetType = UNSET


RESTORED = "health.restored"
"""A journal was put back from a backup: what followed it at the venue is in no record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """What the shell did or saw: `model.*`, `health.*`, `policy.*`, `market.*`; words and numbers as text."""

    event_type: str
    detail: Mapping[str, str]


Event = (
    CandlesDecided
    | FeaturesUsed
    | SignalExplained
    | ShadowScored
    | TradePlanned
    | OrderIntended
    | OrderReported
    | OrderRefused
    | OrderFoundAbsent
    | FillBooked
    | ExitRequested
    | ExitObserved
    | PositionFoundChanged
    | TradeClosed
    | AccountMarked
    | Noted
)
