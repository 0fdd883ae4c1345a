"""RSS and Atom feeds from a real server on loopback: what is told, once, and stamped when it arrived."""

from __future__ import annotations

import pytest
from aiohttp import web

from feature_store.context.gathering import gather, state_of
from feature_store.context.rss import Feed
from feature_store.context.store import ObservationStore
from feature_store.context.web import Web
from tests.context_support import HOUR_MS, NOW_MS, TEXTS, no_pause, rss, says, web_double

CLAIMED = "Tue, 14 Nov 2023 21:00:00 GMT"  # 73 minutes before NOW_MS.
CLAIMED_MS = 1_699_995_600_000
NEWS = rss(
    ("a", "Bitcoin soars to a great new high", CLAIMED),
    ("b", "Terrible exploit: $SOL bridge hacked, ETH falls", CLAIMED),
    ("c", "A quiet day", CLAIMED),
)


def feed(url: str) -> Feed:
    return Feed(Web(f"{url}/news", pause=no_pause), TEXTS)


async def asked(source, store, now_ms=NOW_MS):
    (outcome,) = await gather([source], store, lambda: now_ms)
    return outcome


def rows(told) -> list[tuple]:
    """Return what was told but for the notes that somebody asked."""
    columns = (told.item, told.revision.tolist(), told.subject.tolist(), told.value.tolist())
    return [row for row in zip(*columns, strict=True) if row[0] != "polled"]


@pytest.mark.parametrize("form", ["rss", "atom"])
async def test_entries_are_scored_and_stamped_on_arrival(tmp_path, form):
    """Each entry tells how it sounds, of the market and of the assets it names, available from when it arrived."""
    store = ObservationStore(tmp_path)
    async with web_double() as server:
        server.answers["/news"] = says(
            NEWS if form == "rss" else rss(("a", "Bitcoin soars", "2023-11-14T21:00:00Z"), form=form)
        )
        outcome = await asked(feed(server.url), store)
    assert (outcome.new, outcome.state.is_down) == (3 if form == "rss" else 1, False)
    told = store.read()
    assert set(told.available_at_ms.tolist()) == {NOW_MS}
    assert set(told.event_ms.tolist()) == {CLAIMED_MS, NOW_MS}
    found = {(item, subject): value for item, _, subject, value in rows(told)}
    assert found["a", "BTC"] > 0.3
    assert found["a", ""] == found["a", "BTC"]
    if form == "rss":
        assert found["b", "SOL"] == found["b", "ETH"] < -0.3
        assert found["c", ""] == 0
        assert len(found) == 6


async def test_what_is_served_again_is_stored_once(tmp_path):
    """The same entries are not stored twice; a changed one is stored beside the old one, from its arrival on."""
    store = ObservationStore(tmp_path)
    async with web_double() as server:
        server.answers["/news"] = says(NEWS)
        source = feed(server.url)
        await asked(source, store)
        assert (await asked(source, store, NOW_MS + HOUR_MS)).new == 0
        edited = NEWS.replace("A quiet day", "A wonderful day for Ethereum")
        server.answers["/news"] = says(edited)
        assert (await asked(source, store, NOW_MS + 30 * 24 * HOUR_MS)).new == 1
    last = rows(store.read(start_ms=NOW_MS + 2 * HOUR_MS))
    assert [(item, revision, subject) for item, revision, subject, _ in last] == [("c", 1, ""), ("c", 1, "ETH")]
    assert rows(store.read(end_ms=NOW_MS + 1)) == rows(store.read())[:6]


async def test_a_feed_is_asked_for_what_is_new(tmp_path):
    """The validators of the last answer go with the next question; 304 is an answer without news."""
    store = ObservationStore(tmp_path)

    def answer(request: web.Request) -> web.Response:
        if request.headers.get("If-None-Match") == '"v1"':
            return web.Response(status=304)
        return web.Response(text=NEWS, headers={"ETag": '"v1"', "Last-Modified": CLAIMED})

    async with web_double() as server:
        server.answers["/news"] = answer
        assert (await asked(feed(server.url), store)).new == 3
        outcome = await asked(feed(server.url), store, NOW_MS + HOUR_MS)
        assert (outcome.new, outcome.state.is_down, len(server.requests)) == (0, False, 2)
        assert server.requests[1].headers["If-Modified-Since"] == CLAIMED
        assert (await asked(feed(server.url), store, NOW_MS + 2 * HOUR_MS)).new == 0


async def test_a_feed_that_claims_the_future_gains_nothing(tmp_path):
    """A date that has not come is not believed: the entry happened when it arrived; absurd dates are no dates."""
    store = ObservationStore(tmp_path)
    dates = ("Fri, 14 Nov 2031 21:00:00 GMT", "Tue, 14 Nov 0001 21:00:00 GMT", "soon", "")
    async with web_double() as server:
        server.answers["/news"] = says(rss(*[(str(key), "Bitcoin", date) for key, date in enumerate(dates)]))
        await asked(feed(server.url), store)
    assert set(store.read().event_ms.tolist()) == {NOW_MS}


FAULTS = {
    "an error of the server": (says("busy", 500), "failed 3 times: status 500"),
    "a page for a feed": (says("<html><body>Are you a robot?</body></html>"), "Expected an RSS or Atom feed"),
    "nothing": (says(""), "Expected an RSS or Atom feed"),
    "JSON": (says('{"items": []}'), "Expected an RSS or Atom feed"),
    "a key refused": (says("no", 403), "status 403"),
    "gone": (says("", 404), "status 404"),
    "too large": (says(b"<rss>" + bytes(9 * 1024 * 1024)), "more than 8192 KiB"),
    "rate limit": (says("", 429, Retry_After="120"), "left alone for 120 s"),
    "rate limit by date": (says("", 429, Retry_After="Tue, 14 Nov 2023 23:23:20 GMT"), "left alone for 600 s"),
    "rate limit in words": (says("", 429, Retry_After="later"), "left alone for 60 s"),
    "rate limit without end": (says("", 429, Retry_After="9" * 400), "left alone for 86400 s"),
    "entities": (says('<!DOCTYPE r [<!ENTITY a "b">]>' + NEWS.partition("?>")[2]), "declares entities"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_feed_that_is_down_is_noted_and_changes_nothing(tmp_path, fault):
    """Whatever a server does, asking ends with a reason; what was known stays, and another feed is not held up."""
    answer, reason = FAULTS[fault]
    store = ObservationStore(tmp_path)
    async with web_double() as server:
        server.answers |= {"/news": says(NEWS), "/other": says(NEWS)}
        source = feed(server.url)
        await asked(source, store)
        before = rows(store.read())
        server.answers["/news"] = answer
        other = Feed(Web(f"{server.url}/other", pause=no_pause), TEXTS)
        failed, fine = await gather([source, other], store, lambda: NOW_MS + HOUR_MS)
    assert (failed.new, failed.state.failures, fine.new) == (None, 1, 3)
    assert reason in failed.state.reason
    assert state_of(store, source.name) == failed.state
    assert failed.state.answered_ms == NOW_MS
    assert rows(store.read([source.name])) == before


async def test_a_rate_limit_is_kept_by_the_next_run(tmp_path):
    """Until the time it named, a server that limits us is not asked at all; then it is, and the failure is over."""
    store = ObservationStore(tmp_path)
    async with web_double() as server:
        server.answers["/news"] = says("", 429, Retry_After="120")
        source = feed(server.url)
        await asked(source, store)
        server.answers["/news"] = says(NEWS)
        assert (await asked(source, store, NOW_MS + 119_000)).new is None
        assert len(server.requests) == 1
        outcome = await asked(source, store, NOW_MS + 120_000)
    assert (outcome.new, outcome.state.failures, outcome.state.not_before_ms) == (3, 0, None)


async def test_an_answer_that_breaks_off_is_asked_for_again(tmp_path):
    """A connection that breaks in the middle is tried again; the second answer counts."""
    store = ObservationStore(tmp_path)

    def answer(request: web.Request) -> web.Response:
        if len(server.requests) == 1:
            request.transport.close()
        return web.Response(text=NEWS)

    async with web_double() as server:
        server.answers["/news"] = answer
        outcome = await asked(feed(server.url), store)
    assert (outcome.new, len(server.requests)) == (3, 2)


async def test_a_server_that_is_not_there_is_a_failure_like_any_other(tmp_path):
    """Nobody listens: noted, with the host and without a traceback."""
    store = ObservationStore(tmp_path)
    async with web_double() as server:
        source = feed(server.url)
    outcome = await asked(source, store)
    assert "failed 3 times" in outcome.state.reason
    assert len(store.read()) == 0


async def test_a_clock_that_is_set_back_is_noticed(tmp_path):
    """A little behind, arrivals keep their order; far behind, nothing is stored until somebody sets it right."""
    store = ObservationStore(tmp_path)
    async with web_double() as server:
        server.answers["/news"] = says(NEWS)
        source = feed(server.url)
        await asked(source, store)
        server.answers["/news"] = says(NEWS.replace("quiet", "good"))
        await asked(source, store, NOW_MS - 60_000)
        assert set(store.read().available_at_ms.tolist()) == {NOW_MS}
        outcome = await asked(source, store, NOW_MS - 2 * HOUR_MS)
    assert "set the clock right" in outcome.state.reason


async def test_a_damaged_file_fails_its_source_alone(tmp_path):
    """A torn file is named, left as it is, and keeps no other source from being stored."""
    store = ObservationStore(tmp_path)
    async with web_double() as server:
        server.answers |= {"/news": says(NEWS), "/other": says(NEWS)}
        source, other = feed(server.url), Feed(Web(f"{server.url}/other", pause=no_pause), TEXTS)
        await asked(source, store)
        (path,) = store.folder(source.name).glob("*.parquet")
        path.write_bytes(b"torn")
        failed, fine = await gather([source, other], store, lambda: NOW_MS)
    assert "Move it away" in failed.state.reason
    assert (path.read_bytes(), fine.new) == (b"torn", 3)
