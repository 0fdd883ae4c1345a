"""Reading all of an account's executions and payments, page by page and window by window."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from inference.domain.order import Fill
from inference.exchange import ccxt_mapping as mapped
from inference.execution.funding import FundingPayment

PAGE = 1000
# The venue answers for seven days at a time and remembers ninety.
_WINDOW_MS = 7 * 86_400_000 - 1
_OLDEST_MS = 90 * 86_400_000

# Asks the venue once, for a query.
Read = Callable[[dict[str, Any]], Awaitable[Any]]


async def all_fills(read: Read, native: str, *, symbol: str, since_ms: int, now_ms: int) -> list[Fill]:
    """
    Return an account's executions in one symbol since a venue time, oldest first; `native` is the venue's name of it.

    Raises:
        MalformedReportError: An answer holds something else.
    """
    found: dict[str, Fill] = {}
    for begin_ms, end_ms in _windows(since_ms, now_ms):
        query: dict[str, Any] = {"symbol": native, "startTime": begin_ms, "endTime": end_ms, "limit": PAGE}
        while True:
            page = [mapped.fill(row, symbol=symbol) for row in mapped.rows("Executions", await read(query))]
            fresh = [one for one in page if one.fill_id not in found]
            found.update((one.fill_id, one) for one in fresh)
            if len(page) < PAGE or not fresh:
                break
            query = {"symbol": native, "fromId": int(page[-1].fill_id) + 1, "limit": PAGE}
    return sorted(found.values(), key=lambda one: (one.event_time_ms, int(one.fill_id)))


async def all_funding(
    read: Read, symbol_of: Callable[[Any], str], *, asset: str, since_ms: int, now_ms: int
) -> list[FundingPayment]:
    """
    Return the funding that an account paid and received in one asset since a venue time, oldest first.

    Raises:
        MalformedReportError: An answer holds something else.
    """
    found: dict[str, FundingPayment] = {}
    for begin_ms, end_ms in _windows(since_ms, now_ms):
        from_ms = begin_ms
        while from_ms <= end_ms:
            query = {"incomeType": "FUNDING_FEE", "startTime": from_ms, "endTime": end_ms, "limit": PAGE}
            rows = mapped.rows("Payments", await read(query))
            page = [mapped.funding_payment(row, symbol=symbol_of(row)) for row in rows if row.get("asset") == asset]
            found.update((one.transaction_id, one) for one in page)
            if len(rows) < PAGE:
                break
            # The next page begins with the moment at which this one was cut off, whatever asset its rows are of.
            from_ms = max(mapped.funding_payment(rows[-1], symbol="").event_time_ms, from_ms + 1)
    return sorted(found.values(), key=lambda one: (one.event_time_ms, one.transaction_id))


def _windows(since_ms: int, now_ms: int) -> Iterator[tuple[int, int]]:
    begin = max(since_ms, now_ms - _OLDEST_MS)
    while begin <= now_ms:
        # A window that reaches beyond the present brings what happened while we asked.
        yield begin, begin + _WINDOW_MS
        begin += _WINDOW_MS
