"""A worker among others of its desk: says what it does and hears what they do, beside its decisions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from inference.governance.briefing import Others
from inference.governance.federation import View, heard, read_views, write_view
from inference.journal.aside import aside

HEARD = "risk.federation_heard"
EXCHANGE_SECONDS = 2.0
"""How often files are written and read, on the wall's clock."""
_NAMES = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Where workers of one desk leave their views, who belongs to it, and how old a view may be that counts."""

    folder: Path
    own: str
    members: tuple[str, ...]
    fresh_seconds: float


class FederationWatch:
    """
    Keeps what the others said; before they were heard, without their folder, and once it is old, nobody was.

    `view` is what this worker says of itself, None before it knows its account. Files are touched in a thread: a
    folder of the network that hangs delays no decision, nor the end of the worker. Each change of who is heard is one
    entry of the journal.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        view: Callable[[], View | None],
        note: Callable[[str, Mapping[str, str]], None],
        wall_ms: Callable[[], int],
    ) -> None:
        self._views: tuple[View, ...] = ()
        self._desk = desk
        self._view = view
        self._note = note
        self._wall_ms = wall_ms
        self._told: tuple[int, int, str] | None = None

    @property
    def others(self) -> Others:
        """What the others say by now: a folder that hangs makes nobody's word last longer."""
        return heard(
            self._views,
            own=self._desk.own,
            members=self._desk.members,
            now_ms=self._wall_ms(),
            fresh_ms=int(self._desk.fresh_seconds * 1000),
        )

    async def run(self) -> None:
        """Exchange views until cancelled."""
        while True:
            await self.exchange()
            await asyncio.sleep(EXCHANGE_SECONDS)

    async def exchange(self) -> None:
        """Say what is said of oneself, and hear the others, once."""
        own, said = self._view(), ""
        try:
            if own is not None:
                await asyncio.wrap_future(aside(partial(write_view, self._desk.folder, own)))
        except OSError as error:
            said = f"the folder cannot be written: {error}"
        try:
            views, unread = await asyncio.wrap_future(aside(partial(read_views, self._desk.folder)))
        except OSError as error:
            views, unread, said = [], [], f"the folder cannot be read: {error}"
        self._views = tuple(views)
        self._tell(said or (f"no view in {', '.join(unread)}" if unread else ""))

    def _tell(self, trouble: str) -> None:
        others = self.others
        now = others.heard, others.expected, trouble[:_NAMES]
        if now != self._told:
            self._told = now
            told = {"heard": str(now[0]), "expected": str(now[1]), "trouble": now[2]}
            self._note(HEARD, told)
