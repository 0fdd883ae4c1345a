"""Features of one's own on the command line: checked, and shown in the catalogue."""

from __future__ import annotations

import json
import re

import pytest

from feature_store.errors import BadInputError
from feature_store.extensions.view import DEFAULT_INCLUDED
from feature_store.features.definition import MODEL_INPUT_NAMES
from flows.feature_commands import catalogue, check
from tests.extension_support import FAULTS, SOUND, written


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("QT_EXTENSIONS", raising=False)
    return tmp_path


def _run(app, *arguments):
    return app(list(arguments), exit_on_error=False, result_action="return_value")


def test_check_tells_what_holds(home, capsys):
    """A sound file ends with 0, a line for each check, and the fingerprint."""
    assert _run(check, str(written(home, SOUND))) == 0
    said = capsys.readouterr().out

    assert "channel_position" in said
    assert "FAILED" not in said
    assert "4 features, fingerprint" in said
    assert said.strip().endswith("every check holds.")


def test_check_fails_where_live_is_not_batch(home, capsys):
    """A feature that mixes rows fails with status 1, and the JSON says which check it was."""
    assert _run(check, str(written(home, FAULTS["crosses rows"])), "--json") == 1
    failed = [one for one in json.loads(capsys.readouterr().out) if not one["passed"]]

    assert {"bad"} == {one["feature"] for one in failed}
    assert "live = batch" in {one["check"] for one in failed}


def test_a_broken_feature_is_told_beside_a_healthy_one(home, capsys):
    """Both are counted, each check of the healthy one is there, and the verdict names the broken one."""
    assert _run(check, str(written(home, SOUND + FAULTS["raises"]))) == 1
    said = capsys.readouterr().out

    assert re.search(r"FAILED  bad +runs +Feature bad failed", said)
    assert re.search(r"held    channel_position +has no unit", said)
    assert said.count("FAILED") == 1
    assert "5 features, fingerprint" in said
    assert said.strip().endswith("1 of them cannot be used: bad.")


def test_a_raw_price_is_told_what_to_do(home, capsys):
    """A price fails for its unit and for being cut off, with advice for both."""
    text = FAULTS["a price"].replace(" / 1e4", "")
    assert _run(check, str(written(home, text))) == 1
    said = capsys.readouterr().out

    assert re.search(r"FAILED  bad +has no unit +prices x 8 change .* values: relate it to the price", said)
    assert re.search(r"FAILED  bad +within bounds +100.0% .* scale it", said)
    assert "1 feature, fingerprint" in said


def test_the_setting_names_the_file(home, monkeypatch, capsys):
    """Without an argument QT_EXTENSIONS is checked; without either, one is asked for."""
    with pytest.raises(BadInputError, match="QT_EXTENSIONS"):
        _run(check)
    monkeypatch.setenv("QT_EXTENSIONS", str(written(home, SOUND)))

    assert _run(check) == 0
    assert "every check holds" in capsys.readouterr().out


def test_the_catalogue_has_a_chapter_on_them(home, monkeypatch, capsys):
    """With QT_EXTENSIONS the page shows one's own features with formula, family and plot, beside the 49."""
    monkeypatch.setenv("QT_EXTENSIONS", str(written(home, SOUND)))
    monkeypatch.setenv("QT_INCLUDE_SYMBOLS", "BTC/USDT:USDT,<b>X</b>")

    assert _run(catalogue, "--json") == 0
    done = json.loads(capsys.readouterr().out)
    page = (home / "home" / "catalogue" / "features.html").read_text()

    assert done["features"] == 53
    assert done["model_inputs"] == len(MODEL_INPUT_NAMES) + 4 + 2 * len(DEFAULT_INCLUDED)
    assert '<tr id="input-rsi@BTC/USDT:USDT">' in page
    assert "rsi of BTC/USDT:USDT, its own candles" in page
    assert "<b>X" not in page
    assert re.search(r'<tr id="input-weighted">.*?XGBoost, LightGBM</td>', page)
    assert page.count("data-feature=") == 53
    assert "Extension my_features.py" in page
    assert "Where the close lies in the range of 20 candles." in page
    assert (home / "home" / "catalogue" / "plots" / "sma_100.svg").exists()


def test_a_page_that_cannot_be_written_says_where_and_what_to_do(tmp_path, monkeypatch):
    """A folder that is a file is told in one sentence, not in a traceback."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    monkeypatch.delenv("QT_EXTENSIONS", raising=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match=r"Cannot write into .*file.*--out"):
        catalogue(["--out", str(tmp_path / "file")], exit_on_error=False, result_action="return_value")
