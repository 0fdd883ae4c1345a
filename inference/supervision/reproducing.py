"""Makes each recorded decision again, beside the trading: what is not reproduced, nobody could account for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from inference.journal.codec import Entry
from inference.journal.replay import replay_decisions
from inference.telemetry.logs import logger

_log = logger("reproducing")

# By then the entries of a candle are on their way, and their stops.
_AFTER_S = 2.0
_NOT_REPRODUCED = "audit.not_reproduced"


class Reproducer:
    """
    Decides the newest recorded candle again in a thread, from the bytes of its entry alone.

    `answer` is True where every byte came out the same, None before any was looked at. Once one did not, it is False
    until the worker starts again: a decision made under a veto says little, and somebody has to look. Where candles
    come faster than they are made again, some are left out.
    """

    def __init__(self, note: Callable[[str, Mapping[str, str]], None], *, after_s: float = _AFTER_S) -> None:
        self.answer: bool | None = None
        self._note = note
        self._after_s = after_s
        self._task: asyncio.Task[None] | None = None

    def look(self, entry: Entry) -> None:
        """Begin to make an entry's decisions again."""
        if self.answer is not False and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._work(entry), name="reproduce")

    async def stop(self) -> None:
        """Leave what was begun."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=5.0)

    async def _work(self, entry: Entry) -> None:
        await asyncio.sleep(self._after_s)
        try:
            _, deviations = await asyncio.to_thread(replay_decisions, (entry,))
            because = "the decisions made again are not those that were recorded" if deviations else ""
        except Exception as error:  # noqa: BLE001 - whatever keeps it from being made again: that is the answer
            because = f"{type(error).__name__}: {error}"
        self.answer = not because
        if because:
            self._note(_NOT_REPRODUCED, {"seq": str(entry.seq), "because": because[:300]})
            _log.error("not_reproduced", seq=entry.seq, because=because[:300])
