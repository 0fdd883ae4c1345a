"""Our order ids in each venue's form, and back: the same id always becomes the same one there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Protocol

from feature_store.venue.errors import OrderRefusedError
from inference.exchange.capabilities import Capabilities, ClientIdForm, Inexpressible, is_accepted_as_text

# Bitfinex keeps 45 bits of an id, and wants no zero.
_INTEGER_BITS = 45
_MOST_REMEMBERED = 100_000


class ClientIds(Protocol):
    """One venue's form of our ids."""

    def at_venue(self, client_order_id: str) -> str | int:
        """
        Return an id as the venue takes it, and remember it for the way back.

        Raises:
            OrderRefusedError: The venue takes no such id; nothing was sent.
        """
        ...

    def ours(self, at_venue: object) -> str | None:
        """Return our id of what the venue calls it, or None for somebody else's."""
        ...

    def remember(self, client_order_ids: Iterable[str]) -> None:
        """Know ids again that were sent in an earlier life."""
        ...


class TextIds:
    """Ids as they are: Binance takes up to 36 letters, digits and a few marks."""

    def at_venue(self, client_order_id: str) -> str:
        """Return the id itself."""
        if not is_accepted_as_text(client_order_id):
            raise _refusal(client_order_id, "it is not 1 to 36 of the characters . A-Z : / a-z 0-9 _ -")
        return client_order_id

    def ours(self, at_venue: object) -> str | None:
        """Return the id itself, if it is one."""
        return at_venue if isinstance(at_venue, str) and is_accepted_as_text(at_venue) else None

    def remember(self, client_order_ids: Iterable[str]) -> None:
        """Do nothing: an id is what it is."""


class IntegerIds:
    """
    Ids as integers of 45 bits, a digest of ours: a digest has no way back, so what was sent is remembered.

    After a restart `remember` is given the ids of the journal; being digests, they are what they were.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._ours: dict[int, str] = {}
        self.remember(known)

    def remember(self, client_order_ids: Iterable[str]) -> None:
        """Make the way back of ids that were sent in an earlier life."""
        for one in client_order_ids:
            self._ours.setdefault(integer_id(one), one)

    def at_venue(self, client_order_id: str) -> int:
        """Return the digest; an id whose digest another one has already is refused, as a second order would be."""
        if not client_order_id:
            raise _refusal(client_order_id, "it is empty")
        number = integer_id(client_order_id)
        if self._ours.setdefault(number, client_order_id) != client_order_id:
            raise _refusal(client_order_id, f"its number {number} is that of {self._ours[number]}")
        if len(self._ours) > _MOST_REMEMBERED:
            self._ours.pop(next(iter(self._ours)))
        return number

    def ours(self, at_venue: object) -> str | None:
        """Return the id whose digest this is, if it was sent from here."""
        if isinstance(at_venue, bool):
            return None
        if isinstance(at_venue, str) and at_venue.isascii() and at_venue.isdigit() and len(at_venue) <= 14:
            at_venue = int(at_venue)
        return self._ours.get(at_venue) if isinstance(at_venue, int) else None


def integer_id(client_order_id: str) -> int:
    """Return the number of an id, from 1 to 2**45 - 1."""
    digest = hashlib.sha256(client_order_id.encode()).digest()
    return int.from_bytes(digest[:8]) % ((1 << _INTEGER_BITS) - 1) + 1


def client_ids_of(venue: Capabilities) -> ClientIds:
    """Return a venue's form of our ids."""
    return IntegerIds() if venue.client_id is ClientIdForm.INTEGER else TextIds()


def _refusal(client_order_id: str, why: str) -> OrderRefusedError:
    return OrderRefusedError(
        f"The venue takes no order id {client_order_id[:60]!r}: {why}", code=Inexpressible.CLIENT_ID_NOT_ACCEPTED
    )
