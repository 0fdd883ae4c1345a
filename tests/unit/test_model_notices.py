"""What flows decide of models reaches the journal, once and whole."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from feature_store.features.definition import fingerprint
from inference.bus.catalogue import KINDS
from inference.models.notices import DriftNotice, JobNotice, Notice, leave_notice, notices_in
from inference.models.registry import BundleCache
from inference.supervision.model_watch import ModelWatch


def _notice(second: int, **changed: object) -> Notice:
    given = {
        "event": "model.verdict", "version": "3", "digest": "d" * 64, "verdict": "held", "mode": "paper",
        "decided_at": f"2026-03-01T00:00:{second:02d}.000+00:00", "missing": ("shadow_days",),
        "reasons": ("shadow_days was 2, bound 3. Too short.",),
    }  # fmt: skip
    return Notice(**(given | changed))  # type: ignore[arg-type]


def _watch(folder: Path | None, seen: list[tuple[str, dict[str, str]]]) -> ModelWatch:
    return ModelWatch(
        cache=BundleCache(Path("nowhere")),
        fingerprint=fingerprint(),
        timeframe="5m",
        on_event=lambda kind, detail: seen.append((kind, dict(detail))),
        monotonic=lambda: 0.0,
        notices=folder,
    )


def test_notices_are_journaled_once_in_the_order_decided(tmp_path):
    """Two notices, left in any order, become two entries; a second look finds none."""
    for second in (7, 3):
        leave_notice(tmp_path, _notice(second, version=str(second)))
    seen: list[tuple[str, dict[str, str]]] = []
    watch = _watch(tmp_path, seen)

    watch.journal_notices()
    watch.journal_notices()

    assert [(kind, detail["version"]) for kind, detail in seen] == [("model.verdict", "3"), ("model.verdict", "7")]
    assert seen[0][1]["missing"] == "shadow_days"
    assert "by" not in seen[0][1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b'{"event":"trade.closed","version":"1"}', b"\x00" * 70_000),
        *(b'{"event":"\xff"}', b'{"event":"model.verdict","version":"\xff"}', b'{"x":' + b"[" * 9_000),
    ],
    ids=["empty", "torn", "list", "other-event", "huge", "no-utf-8", "no-utf-8-within", "deep"],
)
def test_what_is_no_notice_is_named_and_removed(tmp_path, content):
    """A file that cannot be read stops nothing, forges nothing, and is told of once."""
    (tmp_path / "1.json").write_bytes(content)
    seen: list[tuple[str, dict[str, str]]] = []
    watch = _watch(tmp_path, seen)

    watch.journal_notices()
    watch.journal_notices()

    assert seen == [("model.notice_unreadable", {"file": "1.json"})]


def test_a_link_is_not_followed(tmp_path):
    """A notice is a file of the folder itself."""
    elsewhere = leave_notice(tmp_path / "elsewhere", _notice(1))
    folder = tmp_path / "verdicts"
    folder.mkdir()
    (folder / "1.json").symlink_to(elsewhere)

    assert [notice for _, notice in notices_in(folder)] == [None]


@pytest.mark.parametrize("folder", [None, Path("does/not/exist")])
def test_no_folder_holds_no_notices(folder):
    """Most homes have none."""
    seen: list[tuple[str, dict[str, str]]] = []
    _watch(folder, seen).journal_notices()

    assert seen == []


def _job(second: int, status: str) -> JobNotice:
    return JobNotice(
        job_id="retrain_20260301_000000", type="full", status=status, trigger="drift", models=("xgboost", "nhits"),
        told_at=f"2026-03-01T00:00:{second:02d}.000000+00:00", metrics={"cpu_seconds": 1.5}, promoted=False,
    )  # fmt: skip


def _check(figures: int) -> DriftNotice:
    one = ("inputs", "rsi_14", "psi", 0.123456, 0.25, "judged")
    return DriftNotice(
        version="3", role="champion", verdict="stable", hours=24, window_ended_at="2026-03-01T00:00:00+00:00",
        checked_at="2026-03-01T00:00:05.000000+00:00", figures=(("inputs", "", "score", 1.0, 2.0, "judged"), one)
        + (one,) * (figures - 2),
    )  # fmt: skip


def test_jobs_and_checks_of_drift_reach_the_journal_too(tmp_path):
    """In the order told, among decisions, as words alone; documents are JSON in them."""
    for notice in (_job(9, "succeeded"), _check(2), _notice(7), _job(3, "running")):
        leave_notice(tmp_path, notice)
    seen: list[tuple[str, dict[str, str]]] = []
    _watch(tmp_path, seen).journal_notices()

    assert [(kind, detail.get("status") or detail["verdict"]) for kind, detail in seen] == [
        ("model.retraining_changed", "running"),
        ("model.drift_checked", "stable"),
        ("model.verdict", "held"),
        ("model.retraining_changed", "succeeded"),
    ]
    assert {kind for kind, _ in seen} <= set(KINDS)
    assert all(isinstance(text, str) for _, detail in seen for text in detail.values())
    assert (seen[0][1]["models"], seen[0][1]["metrics"], seen[0][1]["promoted"]) == (
        "xgboost,nhits",
        '{"cpu_seconds":1.5}',
        "false",
    )
    assert "started_at" not in seen[0][1]
    assert msgspec.json.decode(seen[1][1]["figures"])[1] == ["inputs", "rsi_14", "psi", 0.123456, 0.25, "judged"]


def test_figures_that_are_too_many_are_told_without_those_of_columns(tmp_path):
    """A document cannot be cut: what stands for the whole is told, and the file is still read."""
    leave_notice(tmp_path, _check(1100))
    ((_, notice),) = notices_in(tmp_path)

    assert notice is not None
    assert msgspec.json.decode(notice.detail()["figures"]) == [["inputs", "", "score", 1.0, 2.0, "judged"]]


def test_what_is_too_long_for_a_file_is_left_out_before_it_is_written(tmp_path):
    """Hundreds of inputs, and an error of a hundred kilobytes: the file is one that is read, and tells the rest."""
    leave_notice(tmp_path, _check(20_000))
    failed = replace(_job(9, "failed"), error_message="e" * 100_000, reasons=("r" * 1500,) * 90)
    leave_notice(tmp_path, replace(failed, metrics={f"m{number}": 1.5 for number in range(20_000)}))
    leave_notice(tmp_path, replace(_notice(12), reasons=("x" * 90_000,), missing=("y" * 90_000,)))
    seen: list[tuple[str, dict[str, str]]] = []
    _watch(tmp_path, seen).journal_notices()

    assert [kind for kind, _ in seen] == ["model.drift_checked", "model.retraining_changed", "model.verdict"]
    assert msgspec.json.decode(seen[0][1]["figures"]) == [["inputs", "", "score", 1.0, 2.0, "judged"]]
    assert (seen[1][1]["status"], seen[1][1]["error_message"]) == ("failed", "e" * 2000)
    assert seen[1][1]["reasons"] == f"{'r' * 1500} {'r' * 500}"[:2000]
    assert "metrics" not in seen[1][1]
    assert (seen[2][1]["reasons"], seen[2][1]["missing"]) == ("x" * 2000, "y" * 2000)


def test_long_reasons_are_cut(tmp_path):
    """A journal entry stays a line that one can read."""
    leave_notice(tmp_path, _notice(1, reasons=("x" * 9000,)))
    ((_, notice),) = notices_in(tmp_path)

    assert notice is not None
    assert len(notice.detail()["reasons"]) == 2000
