"""
The second transport: the same venue asked and led in the caller's own process, without sockets or a wall clock.

Requests are those of the REST interface and meet the same handlers; events are those of the account's stream. Time
moves when the caller says so, and stops where a venue in lockstep stops: at each closed candle, and where something of
the account happened.
"""

from __future__ import annotations

from typing import Any

from infra.sandbox.engine.errors import VenueError
from infra.sandbox.handlers.call import Call
from infra.sandbox.market.series import TICK_MS
from infra.sandbox.protocol.params import Params
from infra.sandbox.protocol.user_events import user_event
from infra.sandbox.routes import ROUTES
from infra.sandbox.spot.account_stream import written
from infra.sandbox.venue import Venue


class InProcess:
    """
    One client of a venue, and the hand that leads its time.

    Nobody signs here and nothing is weighed, as there is nobody else to keep out.
    """

    def __init__(self, venue: Venue) -> None:
        """Take over a venue that has begun."""
        self.venue = venue
        self.heard: list[dict[str, Any]] = []
        """Events of the accounts so far, as their streams tell them."""

    @property
    def now_ms(self) -> int:
        """Venue time: that of the last tick."""
        return self.venue.ticked_ms

    def ask(self, method: str, path: str, **values: object) -> Any:
        """
        Return what the venue answers to a request.

        Raises:
            VenueError: It refuses, with the code and the words that it sends over the wire.
        """
        route = ROUTES.get((method, path))
        if route is None:
            raise VenueError(-5000, f"Path {path}, Method {method} is invalid", status=404)
        params = Params({name: str(value) for name, value in values.items() if value is not None})
        if method != "GET":
            self.venue.check_open(self.now_ms)
        try:
            return route.handler(Call(self.venue, params, self.now_ms))
        finally:
            self._settle()

    def go_on(self) -> int:
        """
        Let time pass until a candle closes or something of the account happens, and return the time.

        Raises:
            VenueError: The recording has ended, and with it time.
        """
        while True:
            end_ms = self.venue.market.end_ms
            if end_ms is not None and self.now_ms >= end_ms:
                raise VenueError(-4108)
            self.venue.advance(self.now_ms + TICK_MS, wall_ms=0.0)
            if self._settle() or self.now_ms % self.venue.market.base_ms == 0:
                return self.now_ms

    def _settle(self) -> bool:
        self.venue.settle(wall_ms=0.0)
        events, self.venue.events = self.venue.events, []
        self.heard += [user_event(one, self.venue.exchange.state) for one in events]
        news, self.venue.spot_events = self.venue.spot_events, []
        self.heard += [told for one in news for told in written(self.venue.spot, one)]
        return bool(events or news)
