"""Which venues have a test network that this version trades on, for whoever decides before a client is made."""

from __future__ import annotations

TEST_NETWORKS = frozenset({"binanceusdm", "binance"})
"""Venues whose test network ccxt knows every address of that we ask; its prices are not the venue's."""


def no_test_network(venue: str) -> str:
    """Say that a venue has no test network, and what to choose instead."""
    return (
        f"{venue} has no test network that ccxt knows;"
        " choose QT_VENUE=binanceusdm for QT_MODE=testnet, or QT_MODE=paper to trade the real market on paper"
    )
