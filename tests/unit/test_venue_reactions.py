"""One reaction for each way in which a request can end."""

from __future__ import annotations

from types import SimpleNamespace

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.venue.answers import Answer
from feature_store.venue.ccxt_package import ccxt
from feature_store.venue.errors import (
    NotSentError,
    OutcomeUnknownError,
    RateLimitedError,
    RetryableError,
    VenueDownError,
    failure_of,
    translate,
)
from feature_store.venue.reactions import Failure, Family, Reaction, reaction_to

R = Reaction
# Code, what ccxt calls it on a host of another name, the reaction when reading, the reaction when sending.
CODES = [
    # An error inside the venue: nobody knows.
    (-1000, Family.UNCLEAR, R.RETRY, R.UNKNOWN),
    (-1001, Family.UNCLEAR, R.RETRY, R.UNKNOWN),
    (-1004, Family.REFUSAL, R.RETRY, R.UNKNOWN),
    (-1006, Family.UNCLEAR, R.RETRY, R.UNKNOWN),
    (-1007, Family.NO_ANSWER, R.DOWN, R.UNKNOWN),
    (-1016, Family.REFUSAL, R.DOWN, R.UNKNOWN),
    (-2020, Family.REFUSAL, R.RETRY, R.UNKNOWN),
    # Overloaded, and documented as not executed.
    (-1008, Family.REFUSAL, R.RETRY, R.RETRY),
    (-1003, Family.RATE, R.RATE_LIMIT, R.RATE_LIMIT),
    (-1015, Family.RATE, R.RATE_LIMIT, R.RATE_LIMIT),
    # The clock: measured again, never retried as it is.
    (-1021, Family.NONCE, R.CLOCK, R.CLOCK),
    (-5028, Family.REFUSAL, R.CLOCK, R.CLOCK),
    # The key, its rights, the address.
    (-1002, Family.AUTHENTICATION, R.ACCOUNT, R.ACCOUNT),
    (-1022, Family.AUTHENTICATION, R.ACCOUNT, R.ACCOUNT),
    (-2008, Family.AUTHENTICATION, R.ACCOUNT, R.ACCOUNT),
    (-2014, Family.AUTHENTICATION, R.ACCOUNT, R.ACCOUNT),
    (-2015, Family.AUTHENTICATION, R.ACCOUNT, R.ACCOUNT),
    (-4192, Family.AUTHENTICATION, R.ACCOUNT, R.ACCOUNT),
    (-4400, Family.AUTHENTICATION, R.ACCOUNT, R.REFUSED),
    # Not known there: no proof right after sending.
    (-2011, Family.NOT_FOUND, R.NOT_FOUND, R.NOT_FOUND),
    (-2013, Family.NOT_FOUND, R.NOT_FOUND, R.NOT_FOUND),
    # The id is taken: the order exists.
    (-4116, Family.REFUSAL, R.REFUSED, R.UNKNOWN),
    (-1125, Family.AUTHENTICATION, R.REFUSED, R.REFUSED),
    (-1112, Family.UNCLEAR, R.REFUSED, R.REFUSED),
    *(
        (code, Family.REFUSAL, R.REFUSED, R.REFUSED)
        for code in (
            -1013, -1100, -1102, -1106, -1111, -1115, -1116, -1117, -1120, -1121, -1128, -1130, -2010, -2018, -2019,
            -2021, -2022, -2023, -2024, -2025, -2027, -2028, -4003, -4005, -4014, -4015, -4016, -4024, -4028, -4045,
            -4046, -4047, -4048, -4059, -4061, -4067, -4068, -4108, -4115, -4118, -4120, -4130, -4131, -4136, -4140,
            -4164, -4509, -5021, -5022, -5027, -9999,
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("code", "family", "reading", "sending"), CODES, ids=[str(row[0]) for row in CODES])
def test_every_code_has_its_reaction(code, family, reading, sending):
    """A code of the venue means the same, whatever status it comes with below 500."""
    for status in (None, 200, 400, 401):
        found = [reaction_to(Failure(family=family, code=code, status=status, sending=one)) for one in (False, True)]

        assert found == [reading, sending]


TAKEN_AT_ITS_WORD = [row for row in CODES if set(row[2:]) != {R.REFUSED} or row[0] in (-1125, -1112, -2023, -4045)]


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize(
    ("code", "_", "reading", "sending"), TAKEN_AT_ITS_WORD, ids=[str(row[0]) for row in TAKEN_AT_ITS_WORD]
)
def test_what_ccxt_made_of_a_code_changes_nothing(code, _, reading, sending, family):
    """On a host of another name ccxt knows no code of futures; the reaction is the same as on Binance's own."""
    assert reaction_to(Failure(family=family, code=code)) == reading
    assert reaction_to(Failure(family=family, code=code, sending=True)) == sending


STATUSES = [
    (403, R.ACCOUNT, R.ACCOUNT),
    (451, R.ACCOUNT, R.ACCOUNT),
    (429, R.RATE_LIMIT, R.RATE_LIMIT),
    (418, R.RATE_LIMIT, R.RATE_LIMIT),
    (408, R.DOWN, R.UNKNOWN),
    (500, R.DOWN, R.UNKNOWN),
    (502, R.DOWN, R.UNKNOWN),
    (503, R.DOWN, R.UNKNOWN),
    (504, R.DOWN, R.UNKNOWN),
]


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize(("status", "reading", "sending"), STATUSES)
def test_every_status_has_its_reaction(status, reading, sending, family):
    """What a gateway or a firewall says by a status counts, whatever ccxt made of its page."""
    assert reaction_to(Failure(family=family, status=status)) == reading
    assert reaction_to(Failure(family=family, status=status, sending=True)) == sending


@pytest.mark.parametrize("code", [None, -9999, -4999])
def test_a_server_error_proves_nothing_whatever_code_stands_in_it(code):
    """An order that met a 5xx may exist, even where a code that nobody knows stands beside it."""
    found = reaction_to(Failure(family=Family.REFUSAL, code=code, status=503, sending=True))

    assert found is R.UNKNOWN


def test_overload_is_the_one_server_error_that_proves_something():
    """-1008 with 503 was not executed, as documented."""
    assert reaction_to(Failure(family=Family.UNCLEAR, code=-1008, status=503, sending=True)) is R.RETRY


@pytest.mark.parametrize(
    ("family", "reaction"),
    [
        (Family.REFUSAL, R.REFUSED),
        (Family.NONCE, R.CLOCK),
        (Family.RATE, R.RATE_LIMIT),
        (Family.AUTHENTICATION, R.ACCOUNT),
        (Family.NO_ANSWER, R.UNKNOWN),
    ],
)
def test_a_venue_that_refuses_with_500_is_believed(family, reaction):
    """Bitfinex says no by the status 500 and an array; its words, as ccxt reads them, count there."""
    found = reaction_to(Failure(family=family, status=500, sending=True, refuses_with_5xx=True))

    assert found is reaction


FAILURES = st.builds(
    Failure,
    family=st.sampled_from(Family),
    code=st.none() | st.sampled_from([row[0] for row in CODES]) | st.integers(-10_000, 300_000_000),
    status=st.none() | st.integers(100, 599),
    sending=st.booleans(),
    left=st.booleans(),
    is_duplicate=st.booleans(),
    refuses_with_5xx=st.booleans(),
)


@given(FAILURES)
def test_no_reaction_claims_more_than_is_known(failure):
    """Whatever comes: UNKNOWN only for sendings, and what never left this machine is never unknown."""
    reaction = reaction_to(failure)

    assert failure.sending or reaction is not R.UNKNOWN
    assert failure.left or reaction is R.DOWN
    if failure.sending and failure.left and failure.family is Family.NO_ANSWER and failure.code is None:
        assert reaction is not R.RETRY
        assert reaction is not R.DOWN


def test_an_answer_that_broke_off_is_no_refusal():
    """A body cut in the middle is for ccxt an `ExchangeError`, which would pass for a proof that nothing happened."""
    error = ccxt.ExchangeError("binanceusdm POST https://fapi.binance.com/fapi/v1/order")
    error.__cause__ = aiohttp.ClientPayloadError("Response payload is not completed")

    assert type(translate(error, sending=True)) is OutcomeUnknownError
    assert type(translate(error)) is VenueDownError


@pytest.mark.parametrize(
    "cause",
    [
        aiohttp.ConnectionTimeoutError("connect"),
        ConnectionRefusedError(111, "refused"),
        aiohttp.ClientConnectorError(SimpleNamespace(host="h", port=1, ssl=False, is_ssl=False), OSError("no route")),
    ],
)
def test_what_was_never_connected_cannot_be_unknown(cause):
    """A connection that was never made carried no order."""
    error = ccxt.RequestTimeout("binanceusdm POST x")
    error.__cause__ = cause

    assert type(translate(error, sending=True)) is VenueDownError


@pytest.mark.parametrize("cause", [TimeoutError(), aiohttp.ServerDisconnectedError(), aiohttp.SocketTimeoutError()])
def test_what_was_connected_may_have_executed(cause):
    """A silence after the connection was made proves nothing."""
    error = ccxt.RequestTimeout("binanceusdm POST x")
    error.__cause__ = cause

    assert type(translate(error, sending=True)) is OutcomeUnknownError


def test_a_spot_order_whose_id_is_taken_exists():
    """Spot says -2010 for every refusal; where the words say that the order is a duplicate, it is there."""
    taken = ccxt.InvalidOrder('binance {"code":-2010,"msg":"Duplicate order sent."}')
    poor = ccxt.InsufficientFunds('binance {"code":-2010,"msg":"Account has insufficient balance."}')

    assert failure_of(taken).is_duplicate
    assert type(translate(taken, sending=True)) is OutcomeUnknownError
    assert type(translate(poor, sending=True)) is not OutcomeUnknownError


def test_what_we_kept_back_ourselves_keeps_its_reason():
    """An error of ours that had to travel through ccxt is itself again on the other side."""
    ours = RateLimitedError("wait", retry_after_seconds=3.0)

    assert translate(NotSentError(ours), sending=True) is ours
    assert isinstance(NotSentError(RetryableError("later")), ccxt.NetworkError)


@pytest.mark.parametrize(
    ("headers", "text", "seconds"),
    [
        ({"Retry-After": "17"}, "", 17.0),
        ({"retry-after": " 17 "}, "", 17.0),
        ({"RETRY-AFTER": "0.5"}, "", 0.5),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, "", 5.0),
        ({"Retry-After": "-4"}, "", 5.0),
        ({"Retry-After": "\u00b2"}, "", 5.0),
        ({"Retry-After": "99999999999"}, "", 3 * 86_400.0),
        ({}, "Way too much; IP banned until 1700000090000.", 90.0),
        ({}, "IP banned until 1600000000000.", 1.0),
        ({}, "IP banned until 9999999999999.", 3 * 86_400.0),
        ({}, "IP banned until soon", 5.0),
    ],
)
def test_how_long_to_wait_is_read_from_header_or_words(headers, text, seconds):
    """A wait comes from the answer of the very request, stays between bounds, and has a default."""
    error = ccxt.DDoSProtection(f"binanceusdm 429 Too Many Requests {text}")
    error.venue_answer = Answer(429, headers)
    exchange = SimpleNamespace(milliseconds=lambda: 1_700_000_000_000)

    assert translate(error, exchange=exchange).retry_after_seconds == pytest.approx(seconds)


def test_another_requests_answer_is_not_taken_for_ones_own():
    """The client's last headers belong to whoever was answered last; an error's own come first."""
    error = ccxt.DDoSProtection("binanceusdm 418 banned")
    error.venue_answer = Answer(418, {})
    exchange = SimpleNamespace(milliseconds=lambda: 0, last_response_headers={"Retry-After": "1"})

    assert translate(error, exchange=exchange).retry_after_seconds == 120.0


def test_cancellation_is_no_answer():
    """A wait that ended is as unknown as a connection that broke."""
    assert type(translate(TimeoutError(), sending=True)) is OutcomeUnknownError
