"""What flows decide of models reaches the journal, once and whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from feature_store.features.definition import fingerprint
from inference.models.notices import Notice, leave_notice, notices_in
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
    [b"", b"{", b"[]", b'{"event":"trade.closed","version":"1"}', b"\x00" * 70_000],
    ids=["empty", "torn", "list", "other-event", "huge"],
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


def test_long_reasons_are_cut(tmp_path):
    """A journal entry stays a line that one can read."""
    leave_notice(tmp_path, _notice(1, reasons=("x" * 9000,)))
    ((_, notice),) = notices_in(tmp_path)

    assert notice is not None
    assert len(notice.detail()["reasons"]) == 2000
