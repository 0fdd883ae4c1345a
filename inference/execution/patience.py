"""How long execution waits, in wall-clock seconds, and a wait that ends in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from inference.domain.order import OrderType

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionSettings:
    """How patient execution is, in wall-clock seconds where nothing else is said."""

    # Between two questions about one order.
    poll_seconds: float = 0.2
    # How long an answer to a sending is awaited before the order is queried besides.
    answer_patience_seconds: float = 1.0
    # How long the answer to a question is awaited, at first; the more were not answered, the longer.
    question_seconds: float = 1.0
    # How long an answer about an order in doubt is awaited before another one is sent beside it.
    doubt_seconds: float = 0.5
    # Beyond the venue's recvWindow, before "absent" is believed.
    window_margin_seconds: float = 0.5
    # How long an entry that provably did not happen is still worth sending again.
    entry_resend_seconds: float = 5.0
    # How long after its candle's close an approval is good, in the venue's milliseconds: until the next decision.
    approval_valid_ms: int = 300_000
    # How long one order is asked for before others get their turn.
    resolve_patience_seconds: float = 10.0
    # How long a market order may rest before it is cancelled.
    market_patience_seconds: float = 5.0
    # How long a position may wait for its stop to be confirmed before it is flattened.
    stop_within_seconds: float = 5.0
    # How long a stop may have fired without filling.
    fired_patience_seconds: float = 3.0
    watch_seconds: float = 1.0
    reconcile_seconds: float = 30.0
    # After how long without a word from us the venue cancels entries that rest, where it can.
    countdown_seconds: float = 30.0
    # How long an exit that is refused again and again waits at most before it is tried once more.
    exit_pause_seconds: float = 15.0
    # How often the executions of a flat trade are asked for before its money is counted without them.
    fills_attempts: int = 5
    # What holds a target at the venue; where that is a limit order, it rests at the target's price.
    target_type: OrderType = OrderType.TAKE_PROFIT_MARKET

    def question_patience(self, silences: int) -> float:
        """Return how long the next question waits after so many in a row were not answered: a slow venue is heard."""
        return self.question_seconds * min(1 + silences // 2, 4)


async def within(seconds: float, work: Coroutine[Any, Any, _T], *, sleep: Callable[[float], Awaitable[None]]) -> _T:
    """
    Return what `work` comes to; what takes longer is cancelled.

    Raises:
        TimeoutError: It took longer.
    """
    task = asyncio.ensure_future(work)
    nap = asyncio.ensure_future(sleep(seconds))
    try:
        await asyncio.wait({task, nap}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise TimeoutError(f"Nothing was heard for {seconds:g} s")
        return task.result()
    finally:
        nap.cancel()
        if not task.done():
            task.add_done_callback(_taken)
            task.cancel()


def _taken(task: asyncio.Future[Any]) -> None:
    # Whatever it ends with is nobody's any more.
    if not task.cancelled():
        task.exception()
