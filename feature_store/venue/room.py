"""Ask a shared budget before a request, around a block or before each call of a function."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from feature_store.venue.budget import RateBudget
from feature_store.venue.spending import Demand


@asynccontextmanager
async def room(budget: RateBudget, demand: Demand, *, patience_s: float = 60.0) -> AsyncIterator[None]:
    """
    Do what is inside once a budget has room for a demand, which is spent then; a decorator of coroutines as well.

    `async with room(budget, Demand(2.0)):` guards one request, `@room(budget, Demand(2.0))` each call of a function.

    Raises:
        RateLimitedError: The venue wants to hear nothing; nothing inside was done.
        RetryableError: There was no room in so many seconds; nothing was spent, and nothing inside was done.
    """
    await budget.admit(demand, patience_s=patience_s)
    yield
