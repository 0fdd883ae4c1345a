"""Old days of challengers go, and nothing that anybody still needs goes with them, wherever a crash cuts it short."""

from __future__ import annotations

import tempfile
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.replay.maturing import Seen
from flows.shadowing import RECENT_DAYS, old_days, read_shadow
from inference.domain.shadow import Role
from inference.journal.daily import DailyJournal
from inference.journal.keeping import parts_of_day, remove_day
from inference.journal.reader import day_files
from tests.shadow_support import CHALLENGER, CHAMPION, OTHER, SANDBOX, START_MS, STEP_MS, SYMBOLS, opinion, scored

DAY = 288
VERSIONS = {CHALLENGER: "2", OTHER: "3"}
HORIZON = 3
PRICES = [100.0] * len(SYMBOLS)


@st.composite
def records(draw) -> list[Seen]:
    """Return a few candles on each of some days, by one challenger, another, or none; some are late in their day."""
    seen = []
    for day in sorted(draw(st.sets(st.integers(0, 24), min_size=RECENT_DAYS, max_size=14))):
        digest = draw(st.sampled_from([None, CHALLENGER, OTHER]))
        first = draw(st.sampled_from([0, DAY - 5, DAY - 2]))
        for number in range(first, min(first + draw(st.integers(1, 5)), DAY)):
            said = [opinion(Role.CHAMPION, CHAMPION, [0.001] * 3)] if draw(st.booleans()) else []
            if digest:
                said.append(opinion(Role.CHALLENGER, digest, [0.002] * 3, horizon=HORIZON))
            seen.append(scored(day * DAY + number, PRICES, tuple(said)))
    return seen


def write(folder: Path, seen: list[Seen]) -> None:
    journal = DailyJournal(folder)
    for one in seen:
        journal.record(one.event, timestamp_ms=one.recorded_ms)
    journal.close()


def outcomes(folder: Path) -> dict[str, list]:
    return {
        rows.ours.digest: [rows.close_ms.tolist(), rows.pending] for rows in read_shadow(folder, SANDBOX).challengers
    }


def day_of(seen: Seen) -> str:
    return (date(2026, 1, 5) + timedelta(milliseconds=seen.recorded_ms - START_MS)).isoformat()


@settings(max_examples=60, deadline=None)
@given(records(), st.integers(0, 12), st.fixed_dictionaries(dict.fromkeys(VERSIONS, st.integers(0, 25))), st.data())
def test_what_goes_is_old_matured_and_logged(seen, keep_days, days_logged, data):
    """A day that goes is past its time, and each outcome of it was logged; whoever is read is read just the same."""
    until = {digest: START_MS + days * DAY * STEP_MS for digest, days in days_logged.items()}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write(folder, seen)
        names, before = [path.name for path in day_files(folder)], outcomes(folder)
        found = old_days(folder, keep_days=keep_days, recent=set(before), logged_until=lambda _, digest: until[digest])
        parts = [part for path in found.over for part in parts_of_day(path)]
        for part in parts[: data.draw(st.integers(0, len(parts)), label="removed before a crash")]:
            part.unlink()
        assert outcomes(folder) == before
        for path in found.over:
            assert remove_day(path)
        assert outcomes(folder) == before
        assert [path.name for path in day_files(folder)] == [
            one for one in names if one not in {path.name for path in found.over}
        ]

    last = date.fromisoformat(names[-1].removesuffix(".jsonl"))
    closes = {one.event.candle_close_ms for one in seen}
    for path in found.over:
        assert keep_days
        assert date.fromisoformat(path.stem) < last - timedelta(days=keep_days)
        for one in (each for each in seen if day_of(each) == path.stem):
            end_ms = one.event.candle_close_ms + HORIZON * STEP_MS
            for said in one.event.opinions:
                if said.role is Role.CHALLENGER:
                    assert said.digest not in before
                    # It was logged, or the candle at the end of its horizon was never seen.
                    assert until[said.digest] >= end_ms or end_ms not in closes


def year_old(horizon: int = HORIZON) -> list[Seen]:
    """Return ten days on which one was scored in an hour, then as many by another."""
    seen = []
    for day in range(20):
        digest = OTHER if day < 10 else CHALLENGER
        said = (opinion(Role.CHALLENGER, digest, [0.002] * 3, horizon=horizon),)
        seen += [scored(day * DAY + number, PRICES, said) for number in range(12)]
    return seen


def test_all_goes_that_is_over_and_zero_keeps_everything(tmp_path):
    """Ten days of who is scored no more go; of who is scored still, all stay, however old."""
    write(tmp_path, year_old())
    every = [path.name for path in day_files(tmp_path)]

    def found(keep_days: int) -> list[str]:
        gone = old_days(tmp_path, keep_days=keep_days, recent={CHALLENGER}, logged_until=lambda *_: 2**60)
        return [path.name for path in gone.over]

    assert found(5) == every[:10]
    assert found(15) == every[:4]
    assert found(0) == found(90) == []


def test_what_is_not_logged_or_damaged_stays_and_is_named(tmp_path):
    """An outcome that is in no run keeps its day, and so does a byte that was changed; the days between go."""
    write(tmp_path, year_old())
    days = day_files(tmp_path)
    days[3].write_bytes(days[3].read_bytes().replace(b"sandbox", b"sandbux", 1))
    up_to = START_MS + 8 * DAY * STEP_MS

    found = old_days(tmp_path, keep_days=5, recent={CHALLENGER}, logged_until=lambda *_: up_to)

    assert list(found.over) == [*days[:3], *days[4:8]]
    assert [one.split()[0] for one in found.kept] == [days[3].name, days[8].name, days[9].name]
    assert "qtctl shadow 3 --live" in found.kept[1]


def test_a_prediction_that_will_never_mature_keeps_no_day(tmp_path):
    """Where no price was seen at the end of a horizon nothing is logged, ever; one that is still due keeps its day."""
    gaps, due = tmp_path / "gaps", tmp_path / "due"
    write(gaps, year_old(horizon=100))
    write(due, year_old(horizon=30 * DAY))

    def found(folder: Path):
        return old_days(folder, keep_days=5, recent={CHALLENGER}, logged_until=lambda *_: 0)

    assert len(found(gaps).over) == 10
    assert found(due).over == ()
    assert "have not matured" in found(due).kept[0]


def test_a_day_that_is_written_stays_whole(tmp_path):
    """While a worker holds a day it is not taken away, and it goes on writing; once let go, nothing of it is left."""
    journal = DailyJournal(tmp_path)
    one, two, three = (scored(number, PRICES, ()) for number in range(3))
    journal.record(one.event, timestamp_ms=one.recorded_ms)
    (path,) = day_files(tmp_path)
    refused = remove_day(path)
    journal.record(two.event, timestamp_ms=two.recorded_ms)
    journal.close()
    path.with_suffix(".torn-7").write_bytes(b"cut short")

    assert not refused
    assert remove_day(path)
    assert list(tmp_path.iterdir()) == []
    journal.record(three.event, timestamp_ms=three.recorded_ms)
    journal.close()
    assert len(day_files(tmp_path)) == 1


def test_no_folder_and_strange_files_are_nothing_to_remove(tmp_path):
    """A home without a journal has no old days, and a file that only looks like a day is never one."""
    assert old_days(tmp_path / "none", keep_days=1, recent=(), logged_until=lambda *_: 0).over == ()
    write(tmp_path, year_old())
    (tmp_path / "2025-99-99.jsonl").write_text("{}\n")

    found = old_days(tmp_path, keep_days=5, recent={CHALLENGER}, logged_until=lambda *_: 2**60)

    assert len(found.over) == 10
    assert (tmp_path / "2025-99-99.jsonl") not in found.over
    with pytest.raises(FileNotFoundError):
        remove_day(tmp_path / "none" / "2025-01-01.jsonl")
