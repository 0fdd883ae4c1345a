"""Which venues there are, and the unmodified ccxt client for each."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import localcontext
from typing import Any
from urllib.parse import urlsplit

from feature_store.errors import BadInputError, UnknownVenueError
from feature_store.venue.answers import keep_answers
from feature_store.venue.ccxt_package import ccxt
from feature_store.venue.errors import LOCAL_OPTION
from feature_store.venue.test_networks import TEST_NETWORKS, no_test_network

RECV_WINDOW_MS = 2_000
"""How long the venue may accept a request of ours: short, so that an unknown outcome is soon decided."""

_KEEP_ALIVE_MS = 15_000  # ccxt's 180 s would notice a dead connection after minutes.


# ccxt keeps a thousand candles of each series that it follows, 30 MB of a hundred; we read the newest at once.
_CANDLES_KEPT = 64


_BITFINEX_FRONT, _SPOT = "/bitfinex", "binance"


@dataclass(frozen=True, slots=True)
class Venue:
    """One venue: its ccxt class, and whether it is our local exchange."""

    ccxt_id: str
    is_sandbox: bool = False


VENUES: dict[str, Venue] = {
    "sandbox": Venue("binanceusdm", is_sandbox=True),
    "binanceusdm": Venue("binanceusdm"),
    "binance": Venue("binance"),
    "bitfinex": Venue("bitfinex"),
    # The local exchange's other fronts.
    "sandbox-bitfinex": Venue("bitfinex", is_sandbox=True),
    "sandbox-spot": Venue("binance", is_sandbox=True),
}


def create_exchange(
    venue: str,
    *,
    url: str | None = None,
    test_network: bool = False,
    api_key: str | None = None,
    api_secret: str | None = None,
    pro: bool = True,
    recv_window_ms: int = RECV_WINDOW_MS,
) -> Any:
    """
    Return the ccxt client of a venue; close it with `await exchange.close()`.

    Args:
        venue: A name in `VENUES`.
        url: Where the sandbox listens, `http://127.0.0.1:9100`; no other venue takes one.
        test_network: Ask the venue's test network for everything, and the venue for nothing.
        api_key: Key for private calls; market data needs none.
        api_secret: Its secret.
        pro: With WebSocket (`ccxt.pro`), or REST only (`ccxt.async_support`), which loads less.
        recv_window_ms: How long the venue may accept a request after its timestamp.

    Raises:
        UnknownVenueError: There is no such venue.
        BadInputError: The sandbox was given no usable url, or another venue was given one; or it has no test network.
    """
    if venue not in VENUES:
        raise UnknownVenueError(venue, VENUES)
    known = VENUES[venue]
    if known.is_sandbox != (url is not None):
        expected = (
            "needs QT_VENUE_URL, for example http://127.0.0.1:9100" if known.is_sandbox else "takes no QT_VENUE_URL"
        )
        raise BadInputError(f"Venue {venue!r} {expected}, was {url!r}")
    if test_network and venue not in TEST_NETWORKS:
        raise BadInputError(no_test_network(venue))
    config: dict[str, Any] = {
        "enableRateLimit": not known.is_sandbox,
        "options": {
            "adjustForTimeDifference": True,
            LOCAL_OPTION: known.is_sandbox,
            "recvWindow": recv_window_ms,
            "warnOnFetchOpenOrdersWithoutSymbol": False,
            "fetchOpenOrders": {"warnWithoutSymbol": False},
            # Signed spot calls before the clock is synchronised would fail on a skewed clock.
            "fetchCurrencies": False,
            "ws": {"keepAlive": _KEEP_ALIVE_MS},
            "OHLCVLimit": _CANDLES_KEPT,
        },
    }
    if known == Venue(_SPOT, is_sandbox=True):
        # Contracts on the same assets would be markets of the same names.
        config["options"]["fetchMarkets"] = {"types": ["spot"]}
    if api_key and api_secret:
        config |= {"apiKey": api_key, "secret": api_secret}
    exchange = _client(known.ccxt_id, config, pro=pro)
    if test_network:
        # What ccxt calls sandbox mode signs nothing of contracts any more, and says to use this.
        exchange.enable_demo_trading(True)
    if url is not None:
        _point(exchange, url)
    return exchange


def _client(ccxt_id: str, config: dict[str, Any], *, pro: bool) -> Any:
    library = ccxt.pro if pro else ccxt.async_support
    exchange = getattr(library, ccxt_id)(config)
    keep_answers(exchange)
    _round_for_itself(exchange)
    return exchange


def _round_for_itself(exchange: Any) -> None:
    """Keep to ccxt how it rounds: with each price it changes the decimal context of whichever thread it runs in."""
    precise = exchange.decimal_to_precision

    def rounded(*given: Any, **named: Any) -> Any:
        with localcontext():
            return precise(*given, **named)

    exchange.decimal_to_precision = rounded


def _point(exchange: Any, url: str) -> None:
    """Send every request of a client to another host, paths unchanged."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise BadInputError(f"QT_VENUE_URL must look like http://127.0.0.1:9100, was {url!r}")
    base = f"{parts.scheme}://{parts.netloc}"
    socket = f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}"
    api = exchange.urls["api"]
    if exchange.id == "bitfinex":
        api |= dict.fromkeys(("public", "private", "v1"), f"{base}{_BITFINEX_FRONT}")
        if "ws" in api:
            rooms = ("public", "private")
            api["ws"] = {room: f"{socket}{_BITFINEX_FRONT}/{room}/ws/2" for room in rooms}
        return
    for name, value in list(api.items()):
        if isinstance(value, str):
            api[name] = f"{base}/{value.split('/', 3)[3]}"
    if "ws" in api:
        # ccxt tells spot from futures by "/stream" in the address.
        api["ws"] |= {
            "linear": f"{socket}/ws",
            "spot": f"{socket}/stream.spot/ws",
            "margin": f"{socket}/stream.spot/ws",
            "ws-api": {
                "spot": f"{socket}/ws-api/v3",
                "linear": f"{socket}/ws-fapi/v1",
                "inverse": f"{socket}/ws-dapi/v1",
            },
        }
    # ccxt picks the error classes of spot and of futures by the host's name; ours has another.
    kind = "spot" if exchange.id == _SPOT else "linear"
    exchange.exceptions["exact"] = {**exchange.exceptions["exact"], **exchange.exceptions[kind]["exact"]}
