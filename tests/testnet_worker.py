"""`qtctl worker`, with a sandbox at what ccxt takes for the test network's addresses; those of the venue stay."""

from __future__ import annotations

import os
import sys
from typing import Any

from feature_store.venue import factory
from inference.cli import main
from inference.settings import Settings

SANDBOX = "TESTNET_WORKER_SANDBOX"


def point_test_network(exchange: Any, url: str) -> None:
    """Rewrite the addresses of the test network, which count once a client is told to use it, and no others."""
    real = exchange.urls["api"]
    exchange.urls["api"] = exchange.urls["demo"]
    factory._point(exchange, url)
    exchange.urls["demo"], exchange.urls["api"] = exchange.urls["api"], real


def run(url: str) -> None:
    """Run the command line of the process with clients whose test network is a sandbox, at the sandbox's own pace."""
    make = factory._client

    def pointed(ccxt_id: str, config: dict[str, Any], *, pro: bool) -> Any:
        exchange = make(ccxt_id, config, pro=pro)
        point_test_network(exchange, url)
        return exchange

    factory._client = pointed
    Settings.is_accelerated = property(lambda _: True)  # type: ignore[method-assign, assignment]
    main(sys.argv[1:])


if __name__ == "__main__":
    run(os.environ[SANDBOX])
