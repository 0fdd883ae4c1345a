"""What repositories, views and queries answer from the tables, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from contextlib import closing
from uuid import UUID

import pytest

from feature_store.errors import BadInputError
from inference.domain.policy import Policy
from inference.journal.daily import DailyJournal
from inference.storage import projector as projecting
from inference.storage import schema
from inference.storage.asking import ask
from inference.storage.database import open_database
from inference.storage.errors import StorageError
from inference.storage.projector import Projector
from inference.storage.records import plain
from inference.storage.repositories import (
    Audit,
    Drift,
    Events,
    Models,
    Performance,
    Positions,
    RetrainingJobs,
    Settings,
    ShadowPredictions,
    Signals,
    Trades,
)
from tests.shadow_support import market
from tests.storage_support import POLICIES, SYMBOLS, dump, projected, traded


def test_repositories_answer(tables, traded_journal):
    """Trades by page and filter, their stories, open positions, refusals with numbers, the active model, the days."""
    projected(tables, traded_journal)
    with tables.reading() as connection:
        trades, signals = Trades(connection), Signals(connection)
        everything = trades.page(limit=1000)
        walked, after = [], None
        while True:
            page = trades.page(limit=3, after=after)
            walked += page.items
            after = page.next
            if after is None:
                break
        moments = [one.planned_at_ms for one in walked]
        closed = [one for one in walked if one.status == "CLOSED"]
        protected = next(one for one in closed if one.exit_reason == "STOP")
        story = trades.story(protected.id)
        assert story is not None
        refused = signals.page(outcome="DENIED", limit=1000).items

        assert tuple(walked) == everything.items
        assert len({one.id for one in walked}) == len(walked) > 3
        assert moments == sorted(moments, reverse=True)
        assert trades.page(symbol=SYMBOLS[0], limit=1000).items == tuple(
            one for one in walked if one.symbol == SYMBOLS[0]
        )
        middle = moments[len(moments) // 2]
        assert {one.planned_at_ms < middle for one in trades.page(until_ms=middle, limit=1000).items} == {True}
        assert {one.planned_at_ms >= middle for one in trades.page(since_ms=middle, limit=1000).items} == {True}
        assert {one.purpose for one in story.orders} >= {"ENTRY", "STOP"}
        assert sum(one.fee for one in story.fills) == protected.fees
        assert trades.story("nobody") is None
        assert trades.of_trace(protected.trace_id) == protected
        assert refused
        assert all(one.code and one.context for one in refused)
        assert sum(signals.refusals().values()) == len(refused)
        assert signals.page(code=refused[0].code, limit=1).items[0].code == refused[0].code
        assert signals.of_trace(refused[0].trace_id or "") is not None
        positions = Positions(connection).page(status=None, limit=1000).items
        assert {one.trade_id for one in positions} <= {one.id for one in walked}
        assert all(one.quantity == 0 for one in positions if one.status == "CLOSED")
        assert {(one.version, one.status) for one in Models(connection).all()} == {("1", "RETIRED"), ("2", "ACTIVE")}
        active = Models(connection).active()
        assert active is not None
        assert active.version == "2"
        days = Performance(connection).days()
        assert sum(one.trades_count for one in days) == len(closed)
        assert all(one.net_pnl == one.total_pnl + one.funding == one.gross_pnl - one.fees + one.funding for one in days)
        assert {day.wins + day.losses <= day.trades_count for day in days} == {True}
        assert Performance(connection).equity(limit=1).items[0].equity == days[-1].equity_last
        assert Events(connection).page(family="model", limit=1000).items[-1].event_type == "model.verdict"
        assert all(one.is_alert for one in Events(connection).page(alerts=True).items)


def test_other_systems_find_what_they_keep_by_uuid(tables, traded_journal):
    """Ids in the words of others are UUIDs, the same at each rebuild; a position names its trade by it."""
    projected(tables, traded_journal)
    asked = "SELECT id FROM source_trades ORDER BY created_at, id"
    _, before = ask(tables, asked, limit=1000)
    for view in ("source_trades", "source_positions", "source_signals", "source_models", "source_model_registry"):
        _, ids = ask(tables, f"SELECT id FROM {view}", limit=1000)
        assert len({str(UUID(str(one))) for (one,) in ids}) == len(ids)
    _, orphans = ask(
        tables, "SELECT id FROM source_positions WHERE trade_id NOT IN (SELECT id FROM source_trades)", limit=1
    )
    projector = Projector(tables, traded_journal)
    projector.begin_anew()
    projector.catch_up()
    with tables.reading() as connection:
        trades = Trades(connection)
        found = [trades.of_uuid(str(one)) for (one,) in before]
        unknown = trades.of_uuid(str(UUID(int=7))), trades.of_uuid("no uuid")

    assert (ask(tables, asked, limit=1000)[1], orphans) == (before, [])
    assert len(before) > 3
    assert [one.uuid for one in found if one] == [str(one) for (one,) in before]
    assert unknown == (None, None)


def test_learning_settings_and_acts_are_told(tables, traded_journal):
    """Jobs as they stand last, figures of drift, rules in force with who made them, and acts under their digests."""
    projected(tables, traded_journal)
    entries = {one.seq: one for one in traded(2)}
    with tables.reading() as connection:
        jobs = RetrainingJobs(connection).page().items
        drift, psi = Drift(connection).page(limit=1000).items, Drift(connection).page(name="rsi_14", statistic="psi")
        acts, stops = Audit(connection).page(limit=1000).items, Audit(connection).page(section="stops").items
        settings = {(one.scope, one.name): one for one in Settings(connection).all()}
        newest = Signals(connection).page(limit=1).items[0].policy

    assert [(one.job_id, one.status) for one in jobs] == [
        ("retrain_20260101_000002", "running"),
        ("retrain_20260101_000001", "succeeded"),
        ("retrain_20260101_000000", "succeeded"),
    ]
    assert {(tuple(one.models), dict(one.metrics or {})["cpu_seconds"]) for one in jobs} == {
        (("xgboost", "nhits"), 1.5)
    }
    assert [(one.name, one.value, one.alarm_at) for one in drift[-2:]] == [("rsi_14", 0.1, None), ("", 1.5, 2.25)]
    assert [one.value for one in psi.items] == [0.1] * 3
    assert {one.digest for one in acts} == {entries[one.seq].digest for one in acts}
    assert {one.event_type for one in acts} >= {"model.verdict", "model.loaded", "policy.updated"}
    assert [(one.actor, one.subject, one.reason) for one in stops] == [("ada", "k9", "over"), ("ada", "k3", "over")]
    assert settings["worker", "mode"].value == "sandbox"
    followed = settings["store", "version"].value
    assert (followed["version"], followed["author"]) == ("2", "bob")
    used = next(leverage for leverage, policy in POLICIES.items() if policy.fingerprint == newest)
    assert settings["policy", "leverage"].value == used
    assert settings["policy", "leverage"].author == {3: "bob", 2: None}[used]
    assert {name for scope, name in settings if scope == "policy"} == set(plain(Policy()))


def test_opinions_that_were_only_compared_have_their_table(tables, traded_journal, tmp_path):
    """Each day's file of the shadow's journal is told as it grows, once, and to the same rows from its beginning."""
    folder, seen = tmp_path / "shadow", market(40, first=280)
    record = DailyJournal(folder)
    projector = Projector(tables, traded_journal, shadow=folder)
    projector.prepare()
    for one in seen:
        record.record(one.event, timestamp_ms=one.recorded_ms)
        projector.catch_up()
    record.close()
    (folder / "notes.jsonl").write_text("no day")
    told = dump(tables)
    with tables.reading() as connection:
        shadow = ShadowPredictions(connection)
        newest, theirs = shadow.page(limit=6).items, shadow.page(version="2", limit=1000).items
        of_one = shadow.page(symbol="AAA/USDT:USDT", limit=1000).items
    projector.begin_anew()
    projector.catch_up()

    assert dump(tables) == told
    assert [row["day"].isoformat() for row in told["shadow_days"]] == ["2026-01-05", "2026-01-06"]
    assert len(told["shadow_predictions"]) == 40 * 2 * 3 == 2 * len(theirs) == 3 * len(of_one)
    assert {one.candle_closed_at_ms for one in newest} == {seen[-1].event.candle_close_ms}
    last = next(one for one in seen[-1].event.opinions if one.version == "2")
    assert [one.expected_return for one in theirs[:3]] == list(reversed(last.expected_return))
    assert newest[0].bid == seen[-1].event.bid[-1]


def test_a_damaged_day_of_the_shadow_keeps_nothing_else_back(tables, traded_journal, tmp_path):
    """It is told up to its damage, and of once; later days and the account's journal go on; mended, so does it."""
    folder = tmp_path / "shadow"
    record = DailyJournal(folder)
    for one in market(40, first=270):
        record.record(one.event, timestamp_ms=one.recorded_ms)
    record.close()
    first = folder / "2026-01-05.jsonl"
    whole = first.read_bytes()
    lines = whole.splitlines(keepends=True)
    first.write_bytes(b"".join([*lines[:5], lines[5].replace(b'"seq":6', b'"seq":7'), *lines[6:]]))
    damages: list[str] = []
    projector = Projector(tables, traded_journal, shadow=folder)
    projector.prepare()
    for _ in range(3):
        projector.catch_up(on_damage=damages.append)
    kept = dump(tables)
    first.write_bytes(whole)
    projector.catch_up(on_damage=damages.append)

    assert len(damages) == 1
    assert "2026-01-05" in damages[0]
    assert {row["day"].day: row["seq"] for row in kept["shadow_days"]} == {5: 5, 6: 40 - len(lines)}
    assert kept["projection"][0]["seq"] == len(traded(2))
    assert dump(tables)["shadow_days"][0]["seq"] == len(lines)


def test_a_page_that_is_none_is_refused(tables, traded_journal):
    """A limit outside of 1 to 1000, and a place that no page told, are refused in words."""
    projected(tables, traded_journal)
    for limit in (0, 1001):
        with tables.reading() as connection, pytest.raises(BadInputError, match="1 to 1000"):
            Trades(connection).page(limit=limit)
    for after in ("", "x", "1", "1.2.3", "-1.2", "9" * 30 + ".1", "1.2; DROP TABLE trades"):
        with tables.reading() as connection, pytest.raises(BadInputError, match="next"):
            Trades(connection).page(after=after)


def test_views_speak_the_words_of_others(tables, traded_journal):
    """Each view has the columns that queries of other systems name, and says what the tables say."""
    projected(tables, traded_journal)
    wanted = {
        "source_trades": "id symbol side entry_price quantity leverage tp_price sl_price status pnl roi created_at"
        " closed_at metadata",
        "source_positions": "id trade_id symbol side size entry_price current_price unrealized_pnl margin leverage"
        " tp_price sl_price created_at updated_at",
        "source_signals": "id symbol direction confidence price model features created_at",
        "source_models": "id type version artifact_path metrics status created_at promoted_at",
        "source_model_registry": "id version tag path params_json metrics_json trained_at is_active",
        "source_risk_state": "daily_pnl weekly_pnl open_positions total_exposure max_drawdown emergency_brake_active"
        " last_updated",
        "source_daily_performance": "date trades_count total_pnl avg_roi",
        "source_retraining_jobs": "job_id type status models started_at completed_at metrics error_message",
        "audit_log": "seq happened_at actor action subject reason digest",
        "market_regimes": "candle_closed_at symbol regime",
        "alerts": "seq happened_at event_type trace_id detail",
    }
    for name, columns in wanted.items():
        names, _ = ask(tables, f"SELECT * FROM {name}", limit=10)

        assert names == columns.split()
    _, sides = ask(tables, "SELECT DISTINCT side FROM source_trades ORDER BY side", limit=10)
    _, statuses = ask(tables, "SELECT DISTINCT status FROM source_trades", limit=10)
    _, active = ask(tables, "SELECT version FROM source_model_registry WHERE is_active", limit=10)
    assert [side for (side,) in sides] == ["LONG", "SHORT"]
    assert {status for (status,) in statuses} <= {"OPEN", "CLOSED", "CANCELLED"}
    assert active == [("2",)]
    _, jobs = ask(tables, "SELECT DISTINCT status FROM source_retraining_jobs", limit=10)
    assert {status for (status,) in jobs} == {"SUCCESS", "RUNNING"}
    _, trained = ask(
        tables, "SELECT version, params_json, trained_at FROM source_model_registry ORDER BY version", limit=10
    )
    assert trained == [("1", None, None), ("2", '{"mode": "voting"}', "2026-01-02T03:04:05+00:00")]


CHANGES = (
    "DELETE FROM trades",
    "UPDATE trades SET pnl = '1'",
    "DROP TABLE trades",
    "CREATE TABLE mine (a INTEGER)",
    "SELECT 1; DELETE FROM trades",
    "COMMIT; DELETE FROM trades",
    "SELECT nonsense FROM nowhere",
    "COMMIT",
    "",
)


def test_a_query_can_only_read(tables, traded_journal):
    """Whatever else it tries is refused, and every row is still there."""
    projected(tables, traded_journal)
    before = dump(tables)

    for sql in CHANGES:
        with pytest.raises(StorageError):
            ask(tables, sql, limit=10)
    assert dump(tables) == before
    assert ask(tables, "SELECT '50%' AS half, ':x' AS colon", limit=1) == (["half", "colon"], [("50%", ":x")])


def test_every_index_serves_a_question(traded_journal, tmp_path):
    """SQLite plans each repository's query by an index, and no index is there that none of them asks for."""
    used: set[str] = set()
    with closing(open_database(None, tmp_path)) as tables:
        projected(tables, traded_journal)
        for sql in _asked(tables):
            with tables.reading() as connection:
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}").all()
            used |= {word for row in plan for word in str(row[3]).split() if word.startswith("idx_")}

    assert used == {index.name for table in schema.metadata.sorted_tables for index in table.indexes}


def _asked(tables) -> list[str]:
    """Return the queries of repositories and projection, with their values written in."""
    said: list[str] = []
    with tables.reading() as connection:
        execute = connection.execute

        def listening(statement, *rest, **more):
            compiled = statement.compile(connection.engine, compile_kwargs={"literal_binds": True})
            said.append(str(compiled))
            return execute(statement, *rest, **more)

        connection.execute = listening
        connection.scalars = lambda statement: listening(statement).scalars()
        connection.scalar = lambda statement: listening(statement).scalar()
        Trades(connection).page(), Trades(connection).page(symbol=SYMBOLS[0]), Trades(connection).of_trace("x")
        trade = Trades(connection).page(limit=1).items[0]
        Trades(connection).story(trade.id)
        Positions(connection).page(), Positions(connection).page(symbol=SYMBOLS[0])
        Signals(connection).page(), Signals(connection).page(symbol=SYMBOLS[0]), Signals(connection).page(code="x")
        Signals(connection).of_trace("x")
        Performance(connection).equity()
        Events(connection).page(event_type="x"), Events(connection).page(family="x")
        Events(connection).page(alerts=True)
        Trades(connection).of_uuid("00000000-0000-0000-0000-000000000007")
        Audit(connection).page(section="x"), RetrainingJobs(connection).page()
        Drift(connection).page(name="x", statistic="y")
        ShadowPredictions(connection).page(), ShadowPredictions(connection).page(version="x")
        projecting.load(connection, projecting.named_by(()))
        projecting._performance(connection, Performance(connection).days()[0].date)
    return said
