"""The venue's request limits and listen keys: counted always, enforced only where asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.sandbox.limits import Limits, RateLimiter, TooMany
from infra.sandbox.listen_keys import ListenKey


def test_without_limits_everything_is_let_in_and_counted():
    """By default nothing is refused, and the headers say what was used."""
    limiter = RateLimiter()
    for second in range(50):
        assert limiter.admit(600.0 + second, 100, is_order=True) is None

    assert limiter.headers(is_order=False) == {"X-MBX-USED-WEIGHT-1M": "5000"}
    assert limiter.headers(is_order=True)["X-MBX-ORDER-COUNT-10S"] == "10"
    assert limiter.headers(is_order=True)["X-MBX-ORDER-COUNT-1M"] == "50"


def test_weight_beyond_the_limit_waits_for_the_next_minute():
    """One request too many is answered 429 until the minute is over, and then all is well."""
    limiter = RateLimiter(Limits(weight_1m=20))

    assert limiter.admit(600.0, 20, is_order=False) is None
    assert limiter.admit(610.0, 1, is_order=False) == TooMany(429, 50.0)
    assert limiter.admit(660.0, 1, is_order=False) is None


@pytest.mark.parametrize(
    ("limits", "wait"), [(Limits(orders_10s=2), 8.0), (Limits(orders_1m=2), 58.0)], ids=["ten seconds", "minute"]
)
def test_orders_have_limits_of_their_own(limits, wait):
    """Orders are counted in ten seconds and in a minute; questions are not among them."""
    limiter = RateLimiter(limits)
    for _ in range(5):
        assert limiter.admit(602.0, 1, is_order=False) is None
    assert limiter.admit(602.0, 0, is_order=True) is None
    assert limiter.admit(602.0, 0, is_order=True) is None

    assert limiter.admit(602.0, 0, is_order=True) == TooMany(429, wait)


def test_who_goes_on_asking_is_banned_longer_each_time():
    """The third request within the time to wait is answered 418, and the next ban is twice as long."""
    limiter = RateLimiter(Limits(strikes=3, ban_seconds=10.0))
    limiter.hold(600.0, 5.0)
    statuses = [limiter.admit(600.0, 1, is_order=False).status for _ in range(4)]
    limiter.hold(620.0, 5.0)
    again = [limiter.admit(620.0, 1, is_order=False) for _ in range(3)][-1]

    assert statuses == [429, 429, 418, 418]
    assert again == TooMany(418, 20.0)
    assert limiter.refused == 7


def test_a_lifted_ban_is_forgotten():
    """Once lifted, requests are let in, and the next ban is the first again."""
    limiter = RateLimiter(Limits(strikes=1, ban_seconds=10.0))
    limiter.hold(600.0, 5.0)
    limiter.admit(600.0, 1, is_order=False)
    limiter.lift()

    assert limiter.admit(600.0, 1, is_order=False) is None
    assert limiter.bans == 0


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 40), st.booleans()), max_size=60))
def test_nobody_waits_in_vain(requests):
    """Who waits as long as was said is let in, whatever was asked before; nothing is let in before."""
    limiter, now = RateLimiter(Limits(weight_1m=60, orders_10s=5, strikes=2, ban_seconds=7.0)), 1_000.0
    for pause, weight, is_order in requests:
        now += pause
        refusal = limiter.admit(now, weight, is_order=is_order)
        if refusal is not None:
            assert refusal.retry_after_seconds > 0
            assert limiter.admit(now + refusal.retry_after_seconds / 2, 1, is_order=False) is not None
            now += 10_000.0
            assert limiter.admit(now, 1, is_order=False) is None


def test_a_listen_key_lives_an_hour_of_the_wall():
    """It expires by itself after an hour of the wall, however fast the venue's time runs; renewed, it is the same."""
    keys = ListenKey()
    key = keys.renew(10.0, 0)

    assert not keys.has_expired(10.0 + 3_600, 10**12)
    assert keys.has_expired(10.1 + 3_600, 0)
    assert keys.renew(3_700.0, 0) == key
    assert not keys.has_expired(3_710.0, 0)


def test_a_listen_key_can_live_an_hour_of_the_venue():
    """Where that is asked for, the venue's clock counts, and only that."""
    keys = ListenKey(on_venue_time=True)
    keys.renew(10.0, 1_000)

    assert not keys.has_expired(10**9, 3_601_000)
    assert keys.has_expired(10.0, 3_601_001)
