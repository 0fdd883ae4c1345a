"""The stream of a paper account: tells what happened to its orders, as a venue's stream does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from inference.domain.order import Fill, OrderReport
from inference.exchange.paper_desk import FundingTold
from inference.exchange.paper_gateway import PaperGateway


class PaperStream:
    """
    Follows the account's orders, and the market for the account.

    `on_report`, `on_fill` and `on_funding` get each event in the order in which it happened, those from before anybody
    listened too. `on_gap` is called at the opening, as at every venue: of what an earlier life was told, and did not
    write down, only a look at the account knows.
    """

    def __init__(
        self,
        gateway: PaperGateway,
        *,
        on_report: Callable[[OrderReport], None],
        on_fill: Callable[[Fill], None],
        on_gap: Callable[[str], None],
        on_funding: Callable[[], None] = lambda: None,
    ) -> None:
        self._gateway = gateway
        self._on_report = on_report
        self._on_fill = on_fill
        self._on_gap = on_gap
        self._on_funding = on_funding
        self._opened = asyncio.Event()
        self.reconnects = 0

    @property
    def is_connected(self) -> bool:
        """Whether events are told."""
        return self._opened.is_set()

    def expect_event(self, sent: float) -> None:
        """Do nothing: there is no connection that could die without a word."""

    async def connected(self, *, within: float) -> bool:
        """Wait until events are told."""
        try:
            async with asyncio.timeout(within):
                await self._opened.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Follow account and market until cancelled."""
        self._opened.set()
        self._on_gap("the stream was opened")
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._deliver(), name="paper-events")
                tasks.create_task(self._gateway.follow(), name="paper-market")
        finally:
            self._opened.clear()

    async def _deliver(self) -> None:
        while True:
            await self._gateway.news.wait()
            while (told := self._gateway.next_told()) is not None:
                if isinstance(told, Fill):
                    self._on_fill(told)
                elif isinstance(told, FundingTold):
                    self._on_funding()
                else:
                    self._on_report(told)
