"""What the Bitfinex front keeps: nonces over a restart, and what a channel starts from over a freeze."""

from __future__ import annotations

import json

import msgspec
import pytest

from infra.sandbox.bitfinex.refusals import NONCE, Refusal
from infra.sandbox.bitfinex.signing import signature
from infra.sandbox.control import perform
from infra.sandbox.market.series import TICK_MS
from tests.fault.test_bitfinex_disturbed import Written
from tests.unit.test_sandbox_latency import START_MS, make_sandbox

SOL = "tSOLF0:USTF0"
PATH = "/v2/auth/r/wallets"


def signed(nonce):
    """Return the headers of a request with a nonce."""
    told = signature("secret", f"/api{PATH}{nonce}{{}}")
    return {"bfx-nonce": str(nonce), "bfx-apikey": "key", "bfx-signature": told}


def test_a_nonce_that_was_used_before_a_restart_is_void_after_it(tmp_path):
    """A request that was let in once is refused as small by the venue's next life; a larger one is let in."""
    before = make_sandbox(tmp_path)
    before.bitfinex.doorkeeper.admit_request(signed(77), PATH, "{}")
    before.save()
    door = make_sandbox(tmp_path).bitfinex.doorkeeper

    with pytest.raises(Refusal) as refused:
        door.admit_request(signed(77), PATH, "{}")
    assert refused.value.code == NONCE
    door.admit_request(signed(78), PATH, "{}")
    assert door.nonces == {"key": 78}


def test_a_nonce_alone_makes_a_state_worth_saving(tmp_path):
    """What only reads changes no account, and yet its nonce is used: the state counts as changed until it is saved."""
    sandbox = make_sandbox(tmp_path)
    sandbox.save()
    assert sandbox.is_saved
    sandbox.bitfinex.doorkeeper.admit_request(signed(77), PATH, "{}")
    assert not sandbox.is_saved
    sandbox.save()
    assert sandbox.is_saved


def test_a_state_from_before_nonces_were_kept_is_read(tmp_path):
    """It knows of none, and any is let in."""
    make_sandbox(tmp_path).save()
    file = tmp_path / "venue.json"
    told = msgspec.json.decode(file.read_bytes())
    del told["nonces"]
    file.write_bytes(msgspec.json.encode(told))
    door = make_sandbox(tmp_path).bitfinex.doorkeeper
    door.admit_request(signed(1), PATH, "{}")
    assert door.nonces == {"key": 1}


FREEZES = ({"op": "freeze_ws"}, {"op": "freeze_ws", "symbol": "SOLUSDT"})


@pytest.mark.parametrize("freeze", FREEZES, ids=["all", "symbol"])
@pytest.mark.parametrize("by", ["event", "beat"])
@pytest.mark.parametrize("channel", ["book", "ticker", "trades"])
async def test_a_channel_that_was_opened_while_frozen_starts_once_it_thaws(freeze, by, channel):
    """Its first message is where a client starts from, then come changes, whether an event or a look wakes it."""
    sandbox = make_sandbox()
    written = Written(sandbox)
    # A socket is frozen for the sake of what it carries already.
    written.follow("ticker" if channel == "trades" else "trades", SOL)
    await perform(sandbox, freeze)
    written.said()
    written.follow(channel, SOL)
    number = next(one["chanId"] for one in written.said() if isinstance(one, dict))
    for step in range(1, 4):
        sandbox.venue.advance(START_MS + step * TICK_MS, wall_ms=0.0)
        sandbox.feeds.on_wake(sandbox.venue.ticked_ms, slow=True)
    assert written.said() == []

    await perform(sandbox, freeze | {"on": False})
    if by == "beat":
        written.session.beat()
    for step in range(4, 9):
        sandbox.venue.advance(START_MS + step * TICK_MS, wall_ms=0.0)
        sandbox.feeds.on_wake(sandbox.venue.ticked_ms, slow=True)
    told = [one[1:] for one in written.said() if isinstance(one, list) and one[0] == number]
    written.session.leave()

    starts = [one for one in told if isinstance(one[0], list) and one[0] and isinstance(one[0][0], list)]
    if channel == "ticker":
        assert len(told[0][0]) == 10
    else:
        assert starts == told[:1]
    if channel == "book":
        assert rebuilt(told) == {level[0]: level[2] for level in written_book(sandbox)}


def rebuilt(told):
    """Return the book that a client has who starts from the first message and takes in the others."""
    levels = {}
    for (message,) in told:
        for price, count, amount in message if isinstance(message[0], list) else [message]:
            if count:
                levels[price] = amount
            else:
                levels.pop(price, None)
    return levels


def written_book(sandbox):
    """Return the book as a channel that is opened now starts from it."""
    late = Written(sandbox)
    late.follow("book", SOL)
    (start,) = [one[1] for one in late.said() if isinstance(one, list) and one[0] != 0]
    late.session.leave()
    return start


async def test_a_stream_of_binance_that_was_subscribed_while_frozen_is_told_at_once_after_the_thaw():
    """Its first event comes with the next look, not with its next turn: what nobody has seen stays fresh."""
    sandbox = make_sandbox()
    socket = Written(sandbox).connection
    for freeze in FREEZES:
        sandbox.hub.subscribe(socket, ["solusdt@trade"])
        await perform(sandbox, freeze)
        sandbox.hub.subscribe(socket, ["solusdt@ticker"])
        sandbox.feeds.on_wake(sandbox.venue.ticked_ms, slow=False)
        while not socket.queue.empty():
            socket.queue.get_nowait()
        await perform(sandbox, freeze | {"on": False})
        sandbox.feeds.on_wake(sandbox.venue.ticked_ms, slow=False)
        told = [json.loads(socket.queue.get_nowait()) for _ in range(socket.queue.qsize())]
        assert [one["e"] for one in told] == ["24hrTicker"]
        sandbox.hub.unsubscribe(socket, ["solusdt@trade", "solusdt@ticker"])


async def test_a_frame_for_accounts_reaches_the_account_channel_and_one_for_the_market_does_not():
    """Whoever has signed is an account's socket at this front, whoever has not is the market's."""
    sandbox = make_sandbox()
    account, market = Written(sandbox), Written(sandbox)
    market.session.leave()
    sandbox.hub.add(market.connection)
    for one in (account, market):
        one.said()
    frame = '{"pushed":1}'
    for to, wanted in (("user", (1, 0)), ("market", (0, 1)), ("all", (1, 1))):
        assert await perform(sandbox, {"op": "push", "to": to, "frame": frame}) == {"ok": True, "pushed": sum(wanted)}
        assert tuple(len(one.said()) for one in (account, market)) == wanted
