"""The client of a test network: every address that it may ask is there, and none of it is in a client of the venue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest

from feature_store.errors import BadInputError
from feature_store.venue.budget import host_of
from feature_store.venue.factory import VENUES, create_exchange
from feature_store.venue.test_networks import TEST_NETWORKS

# By ccxt's own table, and Binance's clients: contracts are told of by the older domain of the test network.
OF_TEST_NETWORKS = ("demo-api.", "demo-fapi.", "demo-dapi.", "demo-stream.", "demo-ws-api.")
OF_TEST_NETWORKS_DOMAIN = ".binancefuture.com"
REST = ("fapiPublic", "fapiPrivate", "fapiPublicV2", "fapiPrivateV2", "fapiPublicV3", "fapiPrivateV3")


def addresses(found: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield each address under its place among the others, as `ws.ws-api.linear`."""
    if not isinstance(found, Mapping):
        yield name, str(found)
        return
    for key, value in found.items():
        yield from addresses(value, f"{name}.{key}".lstrip("."))


def is_of_a_test_network(address: str) -> bool:
    """Whether a host is one of those that play money is traded at."""
    host = urlsplit(address).hostname or ""
    return host.startswith(OF_TEST_NETWORKS) or host.endswith(OF_TEST_NETWORKS_DOMAIN)


@pytest.mark.parametrize("venue", sorted(TEST_NETWORKS))
@pytest.mark.parametrize("pro", [True, False])
def test_a_client_of_the_test_network_knows_no_address_of_the_venue(venue, pro):
    """REST and WebSocket, public and private: all are the test network's, and none is one that a live client has."""
    tested = dict(addresses(create_exchange(venue, test_network=True, pro=pro).urls["api"]))
    real = dict(addresses(create_exchange(venue, pro=pro).urls["api"]))

    wanted = {*REST, "public", "private"}
    if pro:
        wanted |= {"ws.linear", "ws.spot", "ws.ws-api.linear", "ws.ws-api.spot"}
    assert wanted <= tested.keys()
    assert [one for one in tested.items() if not is_of_a_test_network(one[1])] == []
    assert [one for one in real.items() if is_of_a_test_network(one[1])] == []
    hosts = [{urlsplit(one).netloc for one in found.values()} for found in (tested, real)]
    assert hosts[0] & hosts[1] == set()


@pytest.mark.parametrize("account", ["linear", "spot"])
def test_the_sockets_of_market_and_account_are_the_test_networks(account):
    """What ccxt makes of the addresses, with the category and the key of a listener, stays at the test network."""
    venue = "binanceusdm" if account == "linear" else "binance"
    exchange = create_exchange(venue, test_network=True, api_key="k", api_secret="s")

    made = [exchange.get_ws_url(account, category) for category in ("public", "market", "private")]
    made.append(exchange.get_private_ws_url(account, "listen-key"))

    assert all(is_of_a_test_network(one) and one.startswith("wss://") for one in made)


@pytest.mark.parametrize("is_test", [True, False])
async def test_a_signed_order_goes_where_the_mode_says(is_test):
    """Contracts are signed for the test network as they are for the venue, and the request is sent there."""
    exchange = create_exchange("binanceusdm", test_network=is_test, pro=False, api_key="k", api_secret="s")

    signed = exchange.sign("order", ["fapiPrivate"], "POST", {"symbol": "BTCUSDT"})
    await exchange.close()

    assert is_of_a_test_network(signed["url"]) is is_test
    assert signed["url"].endswith("/fapi/v1/order")
    assert "signature=" in signed["body"]


async def test_what_the_test_network_lacks_is_not_asked_of_the_venue():
    """Statistics and wallets exist at the venue only: ccxt refuses by name, before anything is sent."""
    exchange = create_exchange("binanceusdm", test_network=True, pro=False, api_key="k", api_secret="s")

    for api in ("sapi", "fapiData", "papi"):
        with pytest.raises(Exception, match=f"does not have a testnet/sandbox URL for {api} endpoints"):
            exchange.sign("anything", [api], "GET", {})
    await exchange.close()


def test_errors_and_budgets_are_told_apart_by_the_test_networks_host():
    """Codes of contracts mean the same there, and what is asked there is counted there."""
    tested, real = create_exchange("binanceusdm", test_network=True), create_exchange("binanceusdm")

    url = f"{tested.urls['api']['fapiPrivate']}/order"
    assert tested.get_exceptions_by_url(url, "exact") == tested.exceptions["linear"]["exact"]
    assert host_of(tested) != host_of(real)


@pytest.mark.parametrize("venue", sorted(VENUES.keys() - TEST_NETWORKS))
def test_a_venue_without_a_test_network_is_refused_by_name(venue):
    """Nobody trades by mistake where there is none; the message says what to choose."""
    url = "http://127.0.0.1:9100" if VENUES[venue].is_sandbox else None

    with pytest.raises(BadInputError, match=rf"{venue} has no test network .*QT_VENUE=binanceusdm .*QT_MODE=paper"):
        create_exchange(venue, url=url, test_network=True)


def test_ccxts_other_way_to_a_test_network_signs_no_contract():
    """Its sandbox mode was given up for contracts: should that change, the choice in the factory can be made again."""
    exchange = create_exchange("binanceusdm", api_key="k", api_secret="s", pro=False)
    exchange.set_sandbox_mode(True)

    with pytest.raises(Exception, match="testnet/sandbox mode is not supported for futures anymore"):
        exchange.sign("order", ["fapiPrivate"], "POST", {"symbol": "BTCUSDT"})
