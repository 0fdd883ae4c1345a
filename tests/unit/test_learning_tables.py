"""What the journal says of jobs, drift, rules and acts becomes rows, whatever else it says."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from msgspec import UNSET

from inference.domain.events import AccountMarked, CandlesDecided, Noted
from inference.domain.policy import Policy
from inference.domain.position import Account
from inference.domain.risk import RiskView
from inference.journal.codec import GENESIS, Entry, chained
from inference.storage.columns import LAST_MS
from inference.storage.in_force import SettingRecord, rules_in_force, version_in_force
from inference.storage.learning import JobRecord, drift_rows, job_of, jobs_after
from inference.storage.projection import Known, Projection
from inference.storage.supervised import audit_row
from tests.worker_values import T0, make_snapshot

D9300 = Decimal(9300)
TOLD = {"type": "full", "status": "running", "trigger": "drift", "told_at": "2026-03-01T00:00:05.000000+00:00"}


def entry_of(kind: str, detail: dict[str, str], seq: int = 1) -> Entry:
    return chained(Noted(event_type=kind, detail=detail), seq=seq, timestamp_ms=T0, trace_id="", previous=GENESIS)


def jobs_of(*details: dict[str, str]) -> dict[str, JobRecord]:
    known: dict[str, JobRecord] = {}
    for seq, detail in enumerate(details, start=1):
        jobs_after(known, detail, entry_of("model.retraining_changed", detail, seq))
    return known


def test_a_word_that_is_journaled_again_takes_nothing_back():
    """A worker that died between journal and file journals a notice twice, perhaps after a later one."""
    before, after = TOLD | {"job_id": "a"}, TOLD | {"job_id": "a", "status": "succeeded"}
    after["told_at"] = "2026-03-01T00:00:09.000000+00:00"

    assert jobs_of(before, after, before)["a"].status == "succeeded"
    assert jobs_of(before, before)["a"].last_seq == 2
    assert jobs_of(after)["a"].told_ms - jobs_of(before)["a"].told_ms == 4000


@pytest.mark.parametrize(
    "detail",
    [
        {},
        {"job_id": "a", "told_at": "yesterday", "metrics": "{", "resumes": "-1", "promoted": "perhaps"},
        {"job_id": "a", "queued_at": "0001-01-01T00:00:00", "resumes": "9" * 30},
        {"job_id": "a", "queued_at": "9999-12-31T23:59:59-12:00", "metrics": "[" * 9_000},
    ],
)
def test_words_that_make_no_sense_stop_nothing(detail):
    """What cannot be read of a job is not there; its row is one that a database takes and gives back."""
    for key, record in jobs_of(detail).items():
        assert job_of(record.row(key)) == record
        assert (record.metrics, record.resumes, record.promoted, record.queued_ms) == ({}, 0, None, None)


def test_moments_beyond_what_tables_hold_are_none_that_stop_them():
    """A notice may say any moment, and the journal keeps it for ever: a table takes each moment of its row."""
    beyond = "9999-12-31T23:59:59-12:00"
    told = TOLD | {"job_id": "a"} | {f"{name}_at": beyond for name in ("queued", "started", "completed", "told")}
    job = jobs_of(told)["a"].row("a")
    check = {"version": "3", "figures": '[["inputs","","score",3.5,2.25,"judged"]]'}
    (figure,) = drift_rows(
        check | {"checked_at": beyond, "window_ended_at": beyond}, entry_of("model.drift_checked", check)
    )

    found = [row[name] for row in (job, figure) for name in row if name.endswith("_at")]
    assert None in found
    assert all(one is None or 0 <= one <= LAST_MS for one in found)


def test_a_check_of_drift_is_of_the_moment_at_which_it_was_made():
    """Checks of days wait for a worker; what it journals all at once was not found at once."""
    check = {"version": "3", "checked_at": "2026-03-01T00:00:05+00:00"}
    check["figures"] = '[["inputs","","score",3.5,2.25,"judged"]]'
    (row,) = drift_rows(check, entry_of("model.drift_checked", check))

    assert row["checked_at"] == 1_772_323_205_000


def test_figures_of_another_version_make_no_rows():
    """Each figure is a row in its order; a document that is none, or of another form, leaves the event alone."""
    told = {"version": "3", "role": "champion", "verdict": "drifted", "hours": "24"}
    figures = '[["inputs","","score",3.5,2.25,"judged"],["inputs","rsi_14","kl",0.5,null,"drifted"]]'
    rows = drift_rows(told | {"figures": figures}, entry_of("model.drift_checked", {}))

    assert [(one["ordinal"], one["name"], one["statistic"], one["value"], one["alarm_at"]) for one in rows] == [
        (0, "", "score", 3.5, 2.25),
        (1, "rsi_14", "kl", 0.5, None),
    ]
    for wrong in ("", "{}", '[["inputs"]]', "[1]"):
        assert drift_rows(told | {"figures": wrong}, entry_of("model.drift_checked", {})) == []


def test_a_rule_says_who_made_it_so_only_where_that_is_known():
    """Author and version are those of the version that is followed; a policy of no store has none."""
    known: dict[tuple[str, str], SettingRecord] = {}
    said = {"version": "4", "fingerprint": "f", "author": "ada", "reason": "less", "changes": "many"}
    version_in_force(known, said, entry_of("policy.updated", said))
    superseded = said | {"version": "5", "fingerprint": "g", "superseded_by": "6"}
    assert version_in_force(known, superseded, entry_of("policy.updated", superseded)) == set()

    first = rules_in_force(known, {"leverage": 2, "lists": ("a",)}, fingerprint="f", now_ms=T0, seq=2)
    again = rules_in_force(known, {"leverage": 3, "lists": ("a",)}, fingerprint="other", now_ms=T0 + 1, seq=3)

    assert (first, again) == ({("policy", "leverage"), ("policy", "lists")}, {("policy", "leverage")})
    assert known["policy", "lists"].author == "ada"
    assert known["policy", "lists"].version == 4
    assert (known["policy", "leverage"].author, known["policy", "leverage"].changed_ms) == (None, T0 + 1)
    assert "changes" not in known["store", "version"].value


def test_an_act_is_told_with_its_entry_s_digest():
    """Who, what and why by the words of its type; what nobody who supervises asks for is no act."""
    entry = entry_of("risk.emergency_reset", {"stops": "k", "reason": "over", "by": "ada"})
    row = audit_row(entry, entry.data)

    assert row is not None
    assert (row["section"], row["actor"], row["subject"], row["reason"]) == ("stops", "ada", "k", "over")
    assert row["digest"] == entry.digest
    assert audit_row(entry_of("market.candles_late", {"by": "ada"}), {"by": "ada"}) is None


@pytest.mark.parametrize(("risk", "told"), [(UNSET, ""), (RiskView(), ""), (RiskView(emergency="a test"), "a test")])
def test_the_account_s_row_says_why_the_emergency_stop_stands(risk, told):
    """Empty where it stands by, and in journals from before there was one."""
    event = CandlesDecided.of(replace(make_snapshot(()), risk=risk), Policy(), T0, ())
    projection = Projection(Known())
    projection.take(chained(event, seq=1, timestamp_ms=T0, trace_id="", previous=GENESIS), event)
    (row,) = projection.rows()["risk_state"]

    assert row["emergency"] == told


@pytest.mark.parametrize(("week", "lost"), [(Decimal(10_000), Decimal(-700)), (UNSET, Decimal(0))])
def test_a_week_begins_where_the_worker_says_it_does(week, lost):
    """With the last equity before Monday, by which entries are refused; older journals begin with its first."""
    marked = AccountMarked(equity=D9300, day_start_equity=D9300, peak_equity=Decimal(10_000), week_start_equity=week)
    account = Account(equity=D9300, day_start_equity=D9300, peak_equity=Decimal(10_000), week_start_equity=week)
    decided = CandlesDecided.of(replace(make_snapshot(()), account=account), Policy(), T0, ())
    projection = Projection(Known())
    for seq, event in enumerate((marked, decided), start=1):
        projection.take(chained(event, seq=seq, timestamp_ms=T0, trace_id="", previous=GENESIS), event)
    rows = projection.rows()

    assert rows["equity_curve"][0]["week_start_equity"] - D9300 == -lost
    assert rows["risk_state"][0]["weekly_pnl"] == lost
