"""What holds of the Bitfinex front whatever it is asked."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.sandbox.bitfinex.call import Call
from infra.sandbox.bitfinex.channels import checksum
from infra.sandbox.bitfinex.names import cut_amount, cut_price, name_of, number, pair_of
from infra.sandbox.bitfinex.refusals import Refusal, from_engine
from infra.sandbox.bitfinex.routes import route_for
from infra.sandbox.bitfinex.signing import Doorkeeper, signature
from infra.sandbox.engine.errors import MESSAGES, VenueError
from infra.sandbox.engine.instrument import instrument_for_price
from infra.sandbox.protocol.signing import Credentials

PATH, BODY = "/v2/auth/r/wallets", "{}"
amounts = st.decimals(min_value="0.00000001", max_value="10000000", places=8)


def admitted(door, nonce, *, secret="secret", key="key", body=BODY):
    headers = {"bfx-nonce": nonce, "bfx-apikey": key}
    headers["bfx-signature"] = signature(secret, f"/api{PATH}{nonce}{BODY}")
    try:
        door.admit_request(headers, PATH, body)
    except Refusal as refusal:
        return refusal.code
    return 0


@given(st.lists(st.integers(0, 50), max_size=30))
def test_a_key_is_let_in_exactly_when_its_nonce_grows(nonces):
    """Of any sequence, those nonces pass that are larger than every one before; the rest is 10114."""
    door, most = Doorkeeper(Credentials("key", "secret")), 0
    for nonce in nonces:
        assert admitted(door, str(nonce)) == (0 if nonce > most else 10_114)
        most = max(most, nonce)


@pytest.mark.parametrize("wrong", [{"secret": "other"}, {"key": "other"}, {"body": "{ }"}])
def test_what_is_wrongly_signed_uses_up_no_nonce(wrong):
    """A wrong secret, key or body is 10100, and the nonce it brought is still good for who signs rightly."""
    door = Doorkeeper(Credentials("key", "secret"))
    assert admitted(door, "7", **wrong) == 10_100
    assert admitted(door, "7") == 0


@pytest.mark.parametrize("nonce", ["", "x", "-1", "1.5", "²", "9" * 17])
def test_a_nonce_that_is_no_number_is_refused(nonce):
    """Text, signs, fractions and numbers beyond every clock are 10114."""
    assert admitted(Doorkeeper(Credentials("key", "secret")), nonce) == 10_114


@given(amounts, st.sampled_from([0.003, 0.7, 31.0, 2_500.0, 95_000.0]))
def test_prices_are_cut_to_five_digits_and_a_tick_and_amounts_to_a_step(amount, price):
    """What is cut never grows, is cut once and for all, and is what the engine takes."""
    one = instrument_for_price("XUSDT", "X", price)
    cut = cut_price(amount, one)
    assert cut <= amount
    assert len(cut.normalize().as_tuple().digits) <= 5
    assert cut % one.tick == 0
    assert cut == 0 or cut_price(cut, one) == cut
    assert amount - cut_amount(amount, one) < one.step
    assert cut_amount(amount, one) % one.step == 0


@given(st.decimals(min_value="-1e9", max_value="1e9", places=10))
def test_numbers_are_written_without_exponent_and_read_back_equal(value):
    """A number on the wire is the number."""
    text = msgspec.json.encode(number(value)).decode()
    assert "e" not in text.lower()
    assert Decimal(text) == value


@pytest.mark.parametrize("code", sorted(MESSAGES))
def test_whatever_the_engine_refuses_is_refused_in_bitfinex_words(code):
    """A number above zero, words, and none of the other venue's codes."""
    kind, number_, words = from_engine(VenueError(code)).body()
    assert kind == "error"
    assert number_ > 0
    assert words
    assert str(code) not in words


@given(st.dictionaries(amounts, amounts, max_size=30), st.dictionaries(amounts, amounts, max_size=30))
def test_checksums_fit_into_32_bits_and_tell_books_apart(bids, asks):
    """A signed number of 32 bits, another one where a level is gone."""
    levels = bids | {price + 20_000_000: -amount for price, amount in asks.items()}
    found = checksum(levels)
    assert -(1 << 31) <= found < 1 << 31
    if levels and len(bids) <= 25 and len(asks) <= 25:
        gone = dict(list(levels.items())[1:])
        assert checksum(gone) != found


@pytest.mark.parametrize("value", ["x", True, [], {}, "1" * 30, 1.5])
@pytest.mark.parametrize("name", ["cid", "limit", "start"])
def test_a_parameter_that_is_no_whole_number_is_named(name, value):
    """The refusal is 10020 and says which parameter."""
    with pytest.raises(Refusal, match=f"10020 {name}: invalid"):
        Call(None, 0, {name: value}).whole(name)


@pytest.mark.parametrize("cid", [0, 1 << 45, "99999999999999999"])
def test_client_ids_have_45_bits(cid):
    """Zero and anything beyond 45 bits is no client id."""
    with pytest.raises(Refusal, match="cid: invalid"):
        Call(None, 0, {"cid": cid}).client_id()


def test_paths_are_told_apart():
    """A contract's name, colons and all, is read out of its place, and nothing unknown is answered."""
    one = instrument_for_price("BTCUSDT", "BTC", 95_000.0)
    assert (name_of(one), pair_of(one)) == ("tBTCF0:USTF0", "BTCF0:USTF0")
    route, place = route_for("GET", "/v2/candles/trade:5m:tBTCF0:USTF0/hist")
    assert place == ("5m", "tBTCF0:USTF0", "hist")
    assert not route.is_private
    assert route_for("POST", "/v2/auth/r/orders/hist")[1] == ()
    assert route_for("POST", "/v2/auth/r/orders/tBTCF0:USTF0/hist")[1] == ("tBTCF0:USTF0",)
    assert route_for("GET", "/v2/auth/r/wallets") is None
    assert route_for("POST", "/v2/auth/w/withdraw") is None
