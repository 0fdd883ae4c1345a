"""A page in place of the venue's time is nothing that stops a worker: it is asked again."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from feature_store.venue.errors import RetryableError
from inference.bootstrap.reaching import follow_clock
from inference.exchange.ccxt_gateway import CcxtGateway
from inference.exchange.venue_clock import VenueClock

PAGE = "<html><body>The server is busy</body></html>"


def gateway(*answers: object, mode: object = PAGE) -> CcxtGateway:
    """Return a gateway whose venue answers the question for its time with these, one after another."""
    left = list(answers)

    async def time() -> object:
        return left.pop(0) if len(left) > 1 else left[0]

    async def position_mode() -> object:
        return mode

    async def load_markets() -> None:
        pass

    exchange = SimpleNamespace(
        fapiPublicGetTime=time, fapiPrivateGetPositionSideDual=position_mode, load_markets=load_markets, markets={}
    )
    return CcxtGateway(exchange, clock=VenueClock(accelerated=False), monotonic=lambda: 1.0, leverage=1)


@pytest.mark.parametrize(
    "answer", [PAGE, "", None, [], {}, {"serverTime": None}, {"serverTime": "soon"}, {"serverTime": -1}]
)
async def test_an_unreadable_time_is_worth_another_try(answer):
    """Whatever stands where the time should be, nothing happened and nothing was learned."""
    with pytest.raises(RetryableError):
        await gateway(answer).sync_clock()


async def test_an_unreadable_position_mode_is_worth_another_try():
    """A worker that starts while pages come waits for the venue, as it does while there is none."""
    with pytest.raises(RetryableError):
        await gateway({"serverTime": 1_700_000_000_000}).connect()


async def test_the_clock_is_followed_through_a_page(monkeypatch):
    """The service that measures the venue's clock outlives a page and takes the time that follows."""
    one, waits = gateway(PAGE, {"serverTime": 1_700_000_000_000}), []

    async def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            raise asyncio.CancelledError

    monkeypatch.setattr("inference.bootstrap.reaching.asyncio.sleep", wait)
    with pytest.raises(asyncio.CancelledError):
        await follow_clock(one.sync_clock, accelerated=False)

    assert await one.sync_clock() == 1_700_000_000_000
    assert waits == [30.0, 30.0]
