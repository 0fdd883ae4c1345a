"""Time orders from the gateway's call to its report; run in the worker's environment, it prints one JSON object."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from statistics import quantiles
from typing import Any

from feature_store.clock import monotonic
from feature_store.venue.budget import LIMITS, Demand, RateBudget
from feature_store.venue.factory import create_exchange
from feature_store.venue.requests import Urgency
from inference.domain.order import OrderIntent, OrderType, Purpose, Side
from inference.exchange.ccxt_gateway import CcxtGateway
from inference.exchange.transport import govern
from inference.exchange.venue_clock import VenueClock

SYMBOL = "BTC/USDT:USDT"
QUANTITY = Decimal("0.01")
WARM_UP = 30
# The limits of the live venue are wide open here, lest the proof times a wait that they rightly ask for; how they hold
# is what the tests of several processes show. All that the limiter does for an order is done.
LIMIT = replace(LIMITS["binanceusdm"], cost=1e9, orders=((10**6, 10.0), (10**7, 60.0)))


class Client:
    """One gateway under a limiter, and what its orders took."""

    def __init__(self, url: str, name: str) -> None:
        """Make a gateway; whoever wants a limiter puts it into the exchange."""
        self.exchange: Any = create_exchange("sandbox", url=url, api_key="sandbox-key", api_secret="sandbox-secret")
        self.gateway = CcxtGateway(self.exchange, clock=VenueClock(accelerated=False), monotonic=monotonic, leverage=3)
        self._name = name
        self._sent = 0
        self.took_ms: list[float] = []
        self.sent_at: list[float] = []

    async def order(self, *, timed: bool = True) -> None:
        """Send one market order, buying and selling by turns, and wait for its report."""
        self._sent += 1
        intent = OrderIntent(
            client_order_id=f"{self._name}-{self._sent}",
            trade_id=self._name,
            trace_id="",
            symbol=SYMBOL,
            side=Side.BUY if self._sent % 2 else Side.SELL,
            order_type=OrderType.MARKET,
            purpose=Purpose.ENTRY,
            quantity=QUANTITY,
        )
        began = monotonic()
        self.sent_at.append(began)
        await self.gateway.submit(intent)
        if timed:
            self.took_ms.append((monotonic() - began) * 1000)

    def figures(self) -> dict[str, float]:
        """Return percentiles in milliseconds."""
        parts = quantiles(self.took_ms, n=100, method="inclusive")
        return {
            "orders": len(self.took_ms),
            "p50": parts[49],
            "p90": parts[89],
            "p99": parts[98],
            "most": max(self.took_ms),
        }


async def main(url: str, home: str, ours: str, theirs: str) -> dict[str, Any]:
    """Take turns: under the shared limiter, without any, and now and then under ccxt's own."""
    file = Path(home) / "budgets" / "binanceusdm@loopback.json"
    limited, bare, own = Client(url, "qt-ours"), Client(url, "qt-bare"), Client(url, "qt-ccxt")
    budget = RateBudget(file, LIMIT)
    transport = govern(limited.exchange, budget=budget, monotonic=monotonic)
    own.exchange.enableRateLimit = True
    try:
        for client in (limited, bare, own):
            await client.gateway.connect()
            for _ in range(WARM_UP if client is not own else 2):
                await client.order(timed=False)
        every = max(1, int(ours) // int(theirs))
        for turn in range(int(ours)):
            for client in (limited, bare):
                await client.order()
            if turn % every == 0 and len(own.took_ms) < int(theirs):
                # Two in a row: ccxt's limiter lets the first pass, and makes whoever follows wait.
                await own.order(timed=False)
                await own.order()
        last_minute = sum(at > monotonic() - 60.0 for at in limited.sent_at)
        counted = orders_in(file)
        alone = await limiter_alone(budget)
        return {
            "limited": limited.figures(),
            "bare": bare.figures(),
            "ccxt": own.figures(),
            "counted": counted,
            "last_minute": last_minute,
            "limiter_us": alone,
        }
    finally:
        for client in (limited, bare, own):
            await client.gateway.close()
        await transport.close()


def orders_in(file: Path) -> int:
    """Return how many orders the budget has counted: its own, and what the venue told of the other clients'."""
    return int(sum(count for spent in json.loads(file.read_bytes())["orders"].values() for _, count in spent))


async def limiter_alone(budget: RateBudget) -> float:
    """Return what the limiter itself takes for an order, in microseconds, at the median."""
    took: list[float] = []
    for _ in range(300):
        began = monotonic()
        await budget.admit(Demand(0.0, Urgency.USUAL, 1, "measured"), patience_s=0)
        took.append((monotonic() - began) * 1e6)
    return sorted(took)[len(took) // 2]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:5]))))
