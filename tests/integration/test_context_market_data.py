"""CoinGecko's protocol and X's, spoken by a server on loopback."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from aiohttp import web

from feature_store.context.coingecko import CoinGecko
from feature_store.context.gathering import gather
from feature_store.context.social import Posts
from feature_store.context.source import SourceError
from feature_store.context.store import ObservationStore
from feature_store.context.web import Web
from tests.context_support import HOUR_MS, NOW_MS, TEXTS, no_pause, says, web_double

UPDATED = "2023-11-14T22:10:00.000Z"
UPDATED_MS = 1_699_999_800_000
WHOLE = {
    "data": {
        "total_market_cap": {"usd": 1.4e12, "btc": 1},
        "total_volume": {"usd": 6e10},
        "market_cap_percentage": {"btc": 51.5, "eth": 17.0},
        "updated_at": UPDATED_MS // 1000,
    }
}


def coin(number: int, ticker: str = "", **changed) -> dict:
    row = {
        "id": f"coin-{number}",
        "symbol": ticker or f"c{number}",
        "name": "A coin",
        "current_price": 2.5,
        "market_cap": 1e9 / (number + 1),
        "market_cap_rank": number + 1,
        "total_volume": 1e6,
        "last_updated": UPDATED,
    }
    return row | changed


def market(server, coins: list[dict], single: dict | None = None, whole: dict | None = None) -> None:
    """Let a server answer as CoinGecko does, a page of coins at a time."""

    def page(request: web.Request) -> web.Response:
        size, number = int(request.query["per_page"]), int(request.query["page"])
        return web.json_response(coins[(number - 1) * size : number * size])

    server.answers |= {
        "/coins/markets": page,
        "/simple/price": says(json.dumps(single or {})),
        "/global": says(json.dumps(whole or WHOLE)),
    }


def gecko(server, key: str = "", **how) -> CoinGecko:
    return CoinGecko(Web(server.url, {"x-cg-demo-api-key": key} if key else {}, pause=no_pause), **how)


async def told_by(source, store, now_ms=NOW_MS):
    (outcome,) = await gather([source], store, lambda: now_ms)
    found = store.read()
    rows = zip(found.subject.tolist(), found.metric.tolist(), found.value.tolist(), strict=True)
    return outcome, {(subject, metric): value for subject, metric, value in rows}


async def test_market_data_enters_page_by_page(tmp_path):
    """The largest coins, single ones beside them and the whole market, stamped on arrival; the key goes along."""
    store = ObservationStore(tmp_path)
    single = {"tiny": {"usd": 0.5, "usd_market_cap": 7e5, "usd_24h_vol": 10.0, "last_updated_at": UPDATED_MS // 1000}}
    async with web_double() as server:
        market(server, [coin(0, "btc"), *map(coin, range(1, 400))], single)
        source = gecko(server, "secret-key", largest=300, coins={"tiny": "TNY", "coin-1": "ONE"})
        outcome, told = await told_by(source, store)
        assert Counter(request.path for request in server.requests) == {
            "/coins/markets": 2, "/simple/price": 1, "/global": 1,
        }  # fmt: skip
        assert {request.headers["x-cg-demo-api-key"] for request in server.requests} == {"secret-key"}
        assert server.requests[2].query["ids"] == "tiny"
    assert (outcome.new, outcome.state.is_down) == (302, False)
    assert told["BTC", "market_cap_usd"] == 1e9
    assert told["BTC", "dominance_percent"] == 51.5
    assert told["C299", "market_cap_rank"] == 300
    assert ("C300", "market_cap_rank") not in told
    assert told["ONE", "price_usd"] == 2.5
    assert told["TNY", "volume_usd"] == 10.0
    assert told["", "total_market_cap_usd"] == 1.4e12
    assert set(store.read().available_at_ms.tolist()) == {NOW_MS}
    assert UPDATED_MS in store.read().event_ms


async def test_figures_that_did_not_change_are_stored_once(tmp_path):
    """CoinGecko computes every few minutes: asked more often, it tells nothing new, and nothing is stored."""
    store = ObservationStore(tmp_path)
    async with web_double() as server:
        market(server, [coin(0, "btc"), coin(1, "eth")])
        assert (await told_by(gecko(server), store))[0].new == 3
        assert (await told_by(gecko(server), store, NOW_MS + 60_000))[0].new == 0
        market(server, [coin(0, "btc", last_updated="2023-11-14T22:14:00.000Z"), coin(1, "eth")])
        assert (await told_by(gecko(server), store, NOW_MS + 120_000))[0].new == 1


async def test_figures_that_nobody_can_use_are_left_out(tmp_path):
    """No rank, no capitalisation, a negative volume, yesterday's price, a ticker taken: what is left is stored."""
    store = ObservationStore(tmp_path)
    coins = [
        coin(0, "btc", market_cap_rank=None, total_volume=-1),
        coin(1, "BTC", current_price=666.0),
        coin(2, "old", last_updated="2023-11-13T22:00:00.000Z"),
        coin(3, "nil", current_price=0, market_cap=None, market_cap_rank=None, total_volume=None),
        coin(4, "eth", last_updated="when it was", extra={"deep": [1]}),
        coin(5, "neo", last_updated="2099-01-01T00:00:00Z"),
        coin(6, ""),
    ]
    async with web_double() as server:
        market(server, coins)
        _, told = await told_by(gecko(server), store)
    assert {key for key in told if key[0] == "BTC"} == {
        ("BTC", "price_usd"), ("BTC", "market_cap_usd"), ("BTC", "dominance_percent"),
    }  # fmt: skip
    assert told["BTC", "price_usd"] == 2.5
    assert {subject for subject, _ in told} == {"", "BTC", "ETH", "NEO", "C6"}
    assert store.read().event_ms.max() == NOW_MS


PAGES = {
    "HTML": (says("<html>Just a moment...</html>"), "another form"),
    "truncated": (says(json.dumps([coin(0)])[:-20]), "another form"),
    "an object for a list": (says('{"status": {"error_code": 429}}'), "another form"),
    "text for numbers": (says(json.dumps([coin(0, market_cap="many")])), "another form"),
    "not UTF-8": (says(b'[{"id": "\xff\xfe", "symbol": "a"}]'), "another form"),
    "too deep": (says("[" * 100_000), "another form"),
    "infinite": (says('[{"id": "a", "symbol": "a", "market_cap": 1e999}]'), ""),
    "500": (says("oops", 500), "failed 3 times"),
    "429": (says("{}", 429, Retry_After="30"), "left alone for 30 s"),
    "a wrong key": (says("{}", 401), "check its key"),
    "elsewhere": (says("", 302, Location="http://127.0.0.1:1/steal"), "sends us elsewhere"),
}


@pytest.mark.parametrize("fault", PAGES)
async def test_a_wrong_answer_stores_nothing_and_tells_no_key(tmp_path, fault):
    """HTML, half a document, another shape, a refusal, a redirection: a reason without the key, and no row."""
    answer, reason = PAGES[fault]
    store = ObservationStore(tmp_path)
    async with web_double() as server:
        market(server, [])
        server.answers["/coins/markets"] = answer
        source = gecko(server, "secret-key")
        outcome, told = await told_by(source, store)
    assert "secret-key" not in f"{source!r} {outcome!r}"
    assert reason in outcome.state.reason
    if reason:
        assert outcome.new is None
        assert told == {}


def search(server, posts: list[dict]) -> None:
    """Let a server answer as X's recent search does: newest first, two posts a page."""

    def page(request: web.Request) -> web.Response:
        since = int(request.query.get("since_id", "0"))
        found = sorted((one for one in posts if int(one["id"]) > since), key=lambda one: -int(one["id"]))
        begin = int(request.query.get("next_token", "0"))
        shown = found[begin : begin + 2]
        meta = {"result_count": len(shown)}
        if shown:
            meta |= {"newest_id": shown[0]["id"], "oldest_id": shown[-1]["id"]}
        if begin + 2 < len(found):
            meta["next_token"] = str(begin + 2)
        return web.json_response({"data": shown, "meta": meta} if shown else {"meta": meta})

    server.answers["/tweets/search/recent"] = page


def post(number: int, text: str, original: int | None = None) -> dict:
    history = [str(original), str(number)] if original else [str(number)]
    return {"id": str(number), "text": text, "created_at": UPDATED, "edit_history_tweet_ids": history}


def posts_of(server) -> Posts:
    return Posts(Web(server.url, {"Authorization": "Bearer secret-token"}, pause=no_pause), "bitcoin lang:en", TEXTS)


async def test_posts_come_page_by_page_and_only_what_is_new(tmp_path):
    """Every page of a search, with the token; the next question asks from the newest post on; an edit is a revision."""
    store = ObservationStore(tmp_path)
    posts = [post(number, "$BTC is great") for number in (98, 99, 100, 101, 102)]
    async with web_double() as server:
        search(server, posts)
        outcome, told = await told_by(posts_of(server), store)
        assert (outcome.new, len(server.requests)) == (5, 3)
        assert {request.headers["Authorization"] for request in server.requests} == {"Bearer secret-token"}
        assert server.requests[0].query["query"] == "bitcoin lang:en"
        posts.append(post(103, "$BTC is terrible", original=102))
        outcome, told = await told_by(posts_of(server), store, NOW_MS + HOUR_MS)
        assert server.requests[-1].query["since_id"] == "102"
        assert outcome.new == 1
        assert told["BTC", "sentiment"] < 0
        assert (await told_by(posts_of(server), store, NOW_MS + 2 * HOUR_MS))[0].new == 0
        await told_by(posts_of(server), store, NOW_MS + 8 * 24 * HOUR_MS)
        assert "since_id" not in server.requests[-3].query
    found = store.read()
    assert {(item, number) for item, number in zip(found.item, found.revision.tolist(), strict=True) if number} == {
        ("102", 1)
    }
    assert not any(b"great" in path.read_bytes() for path in store.root.rglob("*") if path.is_file())


async def test_pages_that_lead_in_a_circle_end(tmp_path):
    """A search that names the same next page for ever is a failure, and stores nothing."""
    store = ObservationStore(tmp_path)
    async with web_double() as server:
        body = {"data": [post(1, "a")], "meta": {"newest_id": "1", "next_token": "again"}}
        server.answers["/tweets/search/recent"] = says(json.dumps(body))
        outcome, told = await told_by(posts_of(server), store)
    assert "circle" in outcome.state.reason
    assert told == {}


async def test_a_search_without_end_stops_at_ten_pages(tmp_path):
    """However much there is, a question takes ten pages at most."""
    async with web_double() as server:
        search(server, [post(number, "a") for number in range(1, 100)])
        fetched = await posts_of(server).fetch(NOW_MS, {})
        assert (len(fetched.observations), len(server.requests)) == (20, 10)


async def test_a_limit_in_the_middle_keeps_the_place(tmp_path):
    """Where the second page is refused for now, nothing is stored, and the next question begins where this one did."""
    store = ObservationStore(tmp_path)
    async with web_double() as server:
        search(server, [post(number, "a") for number in range(1, 6)])
        page = server.answers["/tweets/search/recent"]
        limited = says("", 429, x_rate_limit_reset=str(NOW_MS // 1000 + 300))
        server.answers["/tweets/search/recent"] = lambda request: (
            limited(request) if "next_token" in request.query else page(request)
        )
        outcome, told = await told_by(posts_of(server), store)
        assert (outcome.state.not_before_ms, outcome.state.memory, told) == (NOW_MS + 300_000, {}, {})
        server.answers["/tweets/search/recent"] = page
        assert (await told_by(posts_of(server), store, NOW_MS + 300_000))[0].new == 5


async def test_ids_that_are_no_numbers_do_no_harm():
    """Marks that are words, or longer than any number, are told apart from numbers and do not stop a search."""
    strange = [{**post(1, "a"), "id": "abc"}, {**post(1, "b"), "id": "9" * 5000, "edit_history_tweet_ids": []}]
    async with web_double() as server:
        server.answers["/tweets/search/recent"] = says(json.dumps({"data": strange, "meta": {"newest_id": "x"}}))
        fetched = await posts_of(server).fetch(NOW_MS, {})
        assert len(fetched.observations) == 2
        server.answers["/tweets/search/recent"] = says(json.dumps({"data": "none", "meta": {}}))
        with pytest.raises(SourceError, match="another form"):
            await posts_of(server).fetch(NOW_MS, {})
