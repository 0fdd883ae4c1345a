"""Verify, diff and card: what people ask of bundles, by folder and by digest."""

from __future__ import annotations

import json

import msgspec
import pytest

from flows.evidence import description, training_markdown
from inference import cli
from inference.models.bundle import bundle_digest, read_manifest
from inference.models.card import IN_SAMPLE, model_card
from inference.models.comparison import SECTIONS, changes, flattened
from tests.training_support import trained_candidate
from tests.worker_bundle import make_bundle


def _qtctl(capsys, *arguments):
    status = cli.run(list(arguments))
    said = capsys.readouterr()
    return status, said.out, said.err


def test_verify_tells_files_and_data(capsys, tmp_path):
    """A sound bundle is verified, with each file's kind."""
    folder = make_bundle(tmp_path / "made")
    status, out, _ = _qtctl(capsys, "models", "verify", str(folder), "--json")
    found = json.loads(out)

    assert status == 0
    assert found["verified"] is True
    assert {one["name"]: one["kind"] for one in found["files"]} == {"xgboost.ubj": "xgboost", "golden.npz": "golden"}


def test_verify_by_digits_of_a_kept_bundle(capsys, tmp_path):
    """The first digits of a digest name a kept bundle; too few to be sure of are asked for more."""
    folder = make_bundle(tmp_path / "made")
    digest = bundle_digest(folder)
    (tmp_path / "bundles").mkdir()
    folder.rename(tmp_path / "bundles" / digest)

    assert _qtctl(capsys, "models", "verify", digest[:10], "--home", str(tmp_path))[0] == 0


def test_verify_names_what_was_wrong(capsys, tmp_path):
    """A file that does not belong is refused by name, as JSON too."""
    folder = make_bundle(tmp_path / "made")
    (folder / "evil.pkl").write_bytes(b"x")
    status, out, error = _qtctl(capsys, "models", "verify", str(folder), "--json")

    assert status == 1
    assert "UNEXPECTED_FILE" in error
    assert "evil.pkl" in json.loads(out)["error"]


@pytest.mark.parametrize(
    ("reference", "status", "message"),
    [("no bundle!", 2, "is no bundle's folder"), ("champion", 1, "qtctl up"), ("3", 1, "qtctl up")],
)
def test_a_name_that_leads_nowhere_says_what_to_do(capsys, tmp_path, monkeypatch, reference, status, message):
    """Nonsense is bad usage; a version without a registry to ask is a failure that names the way out."""
    monkeypatch.delenv("QT_MLFLOW_URL", raising=False)
    found, _, error = _qtctl(capsys, "models", "card", reference, "--home", str(tmp_path))

    assert found == status
    assert message in error


def test_diff_groups_what_changed(capsys, tmp_path):
    """Two trainings of other seeds differ in code, member and checks; each change has both values."""
    before, after = make_bundle(tmp_path / "a", seed=1), make_bundle(tmp_path / "b", seed=2, threshold=0.6)
    status, out, _ = _qtctl(capsys, "models", "diff", str(before), str(after), "--json")
    found = {one["field"]: one for one in json.loads(out)["changes"]}

    assert status == 0
    assert found["threshold"] == {"section": "thresholds", "field": "threshold", "before": 0.51, "after": 0.6}
    assert found["code_version"]["section"] == "model"
    assert found["members.xgboost.file.sha256"]["section"] == "members"
    assert {one["section"] for one in found.values()} <= set(SECTIONS)
    assert "threshold" in _qtctl(capsys, "models", "diff", str(before), str(after))[1]


def test_diff_of_a_bundle_with_itself_is_nothing(capsys, tmp_path):
    """Nothing differs, and that is said."""
    folder = str(make_bundle(tmp_path / "a"))

    assert json.loads(_qtctl(capsys, "models", "diff", folder, folder, "--json")[1])["changes"] == []
    assert "Nothing differs." in _qtctl(capsys, "models", "diff", folder, folder)[1]


def test_changes_find_what_came_and_went():
    """A member that only one bundle has, and data that only one recorded, show with None on the other side."""
    manifest = read_manifest(trained_candidate().path)
    older = msgspec.structs.replace(manifest, data_fingerprint=None, regime=None)
    found = {one.field: one for one in changes(flattened(older), flattened(manifest))}

    assert found["data_fingerprint.digest"].before is None
    assert found["data_fingerprint.digest"].section == "data"
    assert "regime.efficiency" in found
    assert changes(flattened(manifest), flattened(manifest)) == ()


def test_the_card_says_what_matters(capsys):
    """Members, windows, data, results with intervals, regimes, limits and identity; the same card every time."""
    trained = trained_candidate()
    manifest = read_manifest(trained.path)
    digest = bundle_digest(trained.path)
    card = model_card(manifest, digest)

    for said in (
        "## Members", "patchtst", "seen by no part of it", "net of costs", "95 % from", "market regime", "## Limits",
        manifest.data_fingerprint.digest, manifest.feature_fingerprint, digest, "code",
    ):  # fmt: skip
        assert said in card
    assert "## Out of sample" not in card
    for page in (card, training_markdown(trained.report, "http://page")):
        assert IN_SAMPLE in page
        assert "calibration: scale, probabilities, threshold" in page
    assert "or the most cautious one where none paid" in card
    assert _qtctl(capsys, "models", "card", str(trained.path))[1].strip() == card.strip()
    assert json.loads(_qtctl(capsys, "models", "card", str(trained.path), "--json")[1])["card"] == card


def test_a_description_is_as_long_as_mlflow_keeps():
    """What PostgreSQL would refuse is cut at a line, and says where the rest is."""
    short, long = description("# card", "passed"), description("# card", "one gate\n" * 2000)

    assert short == "# card\n\n## Gates\n\npassed"
    assert len(long) <= 5000
    assert long.endswith("reports/gates.md.")
