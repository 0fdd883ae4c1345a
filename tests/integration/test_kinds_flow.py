from __future__ import annotations

import json

import pytest

from feature_store.candle import Timeframe
from feature_store.kinds.definition import BOOK, FILTERS, FUNDING, INDEX, MARK, OPEN_INTEREST, Subject
from feature_store.kinds.store import KindStore
from tests.stack_fixtures import newest_artifacts, qtctl, sandbox_venue

SYMBOLS = ("BTC/USDT:USDT", "ETH/USDT:USDT")


@pytest.fixture(scope="module")
def venue(tmp_path_factory):
    with sandbox_venue(tmp_path_factory.mktemp("venue"), symbols=2, history_days=3, speed=1) as url:
        yield url


@pytest.fixture
def env(prefect_server, venue, tmp_path):
    return {**prefect_server.env, "QUANTUM_HOME": str(tmp_path / "home"), "QT_VENUE_URL": venue}


def test_the_command_fills_the_lake_with_kinds(prefect_server, env, tmp_path):
    """`qtctl ingest --kinds` stores each kind of each symbol, shows a bar and a table, and then finds little new."""
    kinds = "funding,mark,index,open-interest,filters,book"
    done = qtctl("ingest", "--kinds", kinds, "--days", "2", "--timeframe", "15m", "--json", env=env)
    assert done.returncode == 0, done.stderr
    added = json.loads(done.stdout)
    assert list(added) == ["funding", "mark", "index", "open-interest", "filters", "book"]
    # Two days of two symbols, from and up to some moment within a candle.
    assert 2 * 5 <= added["funding"] <= 2 * 7
    assert added["mark"] == added["index"]
    assert added["mark"] in (2 * 191, 2 * 192)
    assert added["open-interest"] == added["mark"] + 2
    assert (added["filters"], added["book"]) == (2, 2 * 40)
    store = KindStore(tmp_path / "home" / "lake")
    assert store.subjects(FUNDING) == [Subject("sandbox", symbol) for symbol in SYMBOLS]
    assert store.subjects(MARK) == [Subject("sandbox", symbol, Timeframe.M15) for symbol in SYMBOLS]
    assert [len(store.subjects(kind)) for kind in (INDEX, OPEN_INTEREST, FILTERS, BOOK)] == [2] * 4

    again = qtctl("ingest", "--kinds", kinds.replace(",book", ""), "--days", "2", "--timeframe", "15m", env=env)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("Stored 0 new rows of funding, ")
    assert "0 new rows of filters" in again.stdout
    artifacts = newest_artifacts(prefect_server)
    rows = json.loads(artifacts["market-data"]["data"])
    assert {row["symbol"] for row in rows} == set(SYMBOLS)
    assert {"kind", "first", "last", "rows", "corrections", "new"} <= set(rows[0])
    for row in rows:
        counted = row["kind"] in {"mark", "index", "open-interest", "funding"}
        assert row["missing"] == ("none" if counted else "-")
        assert (row["expected"] == row["found"] > 0) if counted else row["expected"] == "-"
    assert "progress-market-data" in artifacts


@pytest.mark.parametrize(
    ("options", "says"),
    [
        pytest.param(
            ("--kinds", "fundin"), "Unknown kind of market data 'fundin'; use some of: funding, mark", id="kind"
        ),
        pytest.param(("--kinds", ","), "No kind of market data is named", id="none"),
        pytest.param(
            ("--kinds", "funding", "--symbols", "NOPE/USDT:USDT"), "has no symbol 'NOPE/USDT:USDT'", id="symbol"
        ),
        pytest.param(("--kinds", "open-interest", "--timeframe", "1m"), "use 5m or longer", id="timeframe"),
    ],
)
def test_what_cannot_be_fetched_is_one_sentence(env, tmp_path, options, says):
    """An unknown kind, symbol or timeframe is bad usage, and nothing is written."""
    done = qtctl("ingest", *options, "--days", "1", env=env)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home" / "lake").exists()
