"""A paper account on disk: one JSON file, replaced whole, so that a reader or a crash sees the old or the new one."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import msgspec

from feature_store.files import replace_bytes
from feature_store.json_text import UNREADABLE
from inference.domain.errors import PaperAccountError
from infra.sandbox.engine.model import OrderStatus
from infra.sandbox.engine.state import SCHEMA, EngineState, new_state

_KEPT_MS = 30 * 86_400_000
"""What has ended so long ago is left out: the journal is the record, and no open trade asks for it any more."""


@dataclass(frozen=True, slots=True)
class Announced:
    """The venue's word on the next settlement of funding: when it is, at which rate and at which mark price."""

    at_ms: int
    rate: Decimal
    mark: Decimal | None


@dataclass(slots=True)
class PaperAccount:
    """
    What a paper account is: the engine's state, and what was last heard of the market.

    `heard_ms` is the venue time up to which prices were shown to it, 0 where none was; `announced` holds, by symbol,
    settlements of funding that are still to come, or came while nobody ran.
    """

    venue: str
    engine: EngineState
    heard_ms: int = 0
    announced: dict[str, list[Announced]] = field(default_factory=dict)


class PaperFile:
    """Where a paper account is kept."""

    def __init__(self, path: Path, *, venue: str, balance: Decimal) -> None:
        self._path = path
        self._venue = venue
        self._balance = balance
        # Whether there was no file when it was loaded first: what is known of an account before is another's.
        self.was_missing = False

    def load(self) -> PaperAccount:
        """
        Return the account as it was last saved, or a new one that holds the opening balance.

        Raises:
            PaperAccountError: The file cannot be read, or is another account's.
        """
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            self.was_missing = True
            return PaperAccount(self._venue, new_state(self._balance))
        except OSError as error:
            raise PaperAccountError(f"The paper account {self._path} cannot be read: {error}") from error
        try:
            account = msgspec.json.decode(raw, type=PaperAccount)
        except UNREADABLE as error:
            raise PaperAccountError(
                f"The paper account {self._path} is damaged ({error}); move it away to begin a new one"
            ) from error
        if account.venue != self._venue or account.engine.schema != SCHEMA:
            raise PaperAccountError(
                f"The paper account {self._path} is of venue {account.venue!r}, schema {account.engine.schema}, "
                f"expected {self._venue!r}, {SCHEMA}; move it away to begin a new one"
            )
        return account

    def save(self, account: PaperAccount) -> None:
        """
        Write the account; once this returns it survives a power cut.

        Raises:
            OSError: It could not be written; what was saved before is untouched.
        """
        replace_bytes(self._path, msgspec.json.encode(account))


def forget_old(state: EngineState, now_ms: int) -> None:
    """Drop what ended long ago, so that what is written with each change does not grow with the account's age."""
    since = now_ms - _KEPT_MS
    held = {trip.opened_ms for trip in state.open_trips.values()}
    since = min([since, *held])
    state.orders = {
        number: one
        for number, one in state.orders.items()
        if one.status in (OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED) or one.updated_ms >= since
    }
    state.algos = {number: one for number, one in state.algos.items() if one.is_open or one.updated_ms >= since}
    state.trades = [one for one in state.trades if one.time_ms >= since]
    state.incomes = [one for one in state.incomes if one.time_ms >= since]
    state.trips = [one for one in state.trips if one.closed_ms >= since]
    known = {one.client_order_id for one in state.orders.values()}
    state.executed = {key: ids for key, ids in state.executed.items() if key in known}
