"""Tells of each approved entry what its inputs were and what they did; beside the trading, never in its way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from feature_store.features.live import LatestFeatures
from inference.domain.decision import Approved
from inference.domain.events import SignalExplained
from inference.models.contributions import contributions, largest
from inference.telemetry.logs import logger

if TYPE_CHECKING:
    from inference.supervision.model_watch import ActiveModel

_log = logger("explaining")

_INPUTS_TOLD = 12


class Explainer:
    """
    Explains approvals in a thread, one candle's at a time.

    Where candles come faster than they can be explained, or an explanation fails, it is left out and logged: nobody's
    entry waits for it.
    """

    def __init__(self, record: Callable[[SignalExplained], None]) -> None:
        self._record = record
        self._task: asyncio.Task[None] | None = None

    def explain(self, model: ActiveModel, latest: LatestFeatures, approved: Iterable[Approved]) -> None:
        """Begin to explain; events are recorded as they are made."""
        wanted = list(approved)
        if not wanted:
            return
        if self._task is not None and not self._task.done():
            _log.warning("not_explained", symbols=len(wanted), reason="the last candle's are still being explained")
            return
        self._task = asyncio.create_task(self._work(model, latest, wanted), name="explain")

    async def stop(self) -> None:
        """Let what was begun end."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=5.0)

    async def _work(self, model: ActiveModel, latest: LatestFeatures, approved: list[Approved]) -> None:
        for one in approved:
            try:
                event = await asyncio.to_thread(explained, model, latest, one)
                self._record(event)
            except Exception as error:  # noqa: BLE001 - commentary fails open: the trade is as good without it
                _log.warning("not_explained", symbol=one.symbol, reason=f"{type(error).__name__}: {error}"[:200])


def explained(model: ActiveModel, latest: LatestFeatures, approval: Approved) -> SignalExplained:
    """Return what an approval's inputs were, and the largest of what they did for each member and the ensemble."""
    row = latest.symbols.index(approval.symbol)
    inputs, windows = latest.model_inputs[row : row + 1], latest.windows[row : row + 1]
    parts = contributions(model.bundle, inputs, windows, latest.returns[row : row + 1])
    names = model.bundle.manifest.model_inputs
    return SignalExplained(
        trace_id=approval.signal.trace_id,
        symbol=approval.symbol,
        inputs={name: float(value) for name, value in zip(names, inputs[0], strict=True)},
        parts={member: largest(found, _INPUTS_TOLD) for member, found in parts.items()},
    )
