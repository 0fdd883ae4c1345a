"""Members are found by being there, and what does not exist is refused by name."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import flows.training.members as folder
from feature_store.errors import BadInputError
from flows.training.members import catalogue
from flows.training.members.catalogue import checked, compared_names, names, parse_members, spec
from flows.training.pipeline import train_candidate
from inference.models.bundle import load_bundle
from tests.training_support import FINGERPRINT, make_frames, silent, small_config

DEFAULT = ("xgboost", "lightgbm", "nhits", "patchtst")
COMPARED = ("dlinear", "forest", "linear", "mlp")
TOY = '''
"""A member that follows one input."""

from dataclasses import dataclass

import numpy as np

from flows.training.members.base import MemberSpec
from flows.training.members.graphs import Layer, RowScale, chain_graph
from flows.training.members.rows import FittedRows, lesson


def fit(dataset, rows, config, progress):
    learned = lesson(dataset, rows, config, stride=12)
    scale, slopes = RowScale.of(learned.columns), np.zeros((len(learned.names), 1))
    slopes[learned.names.index("hidden_state")] = 0.1
    progress("toy", 1.0)
    graph = chain_graph("toy", scale, [Layer(slopes, np.zeros(1))])
    return FittedRows("toy", lambda x: (scale.scaled(x) @ slopes)[:, 0], graph, learned.names, learned.scale)


MEMBER = MemberSpec(fit=fit, consumes="one input", share=0.5)
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Put one more file beside the members' own, and take it away again."""
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(folder, "__path__", [*folder.__path__, str(tmp_path)])
    yield "toy"
    sys.modules.pop("flows.training.members.toy", None)
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)


def test_what_there_is():
    """The default four vote, four more are compared with, and the files that members share are none."""
    assert set(names()) == {*DEFAULT, *COMPARED}
    assert compared_names() == COMPARED
    assert small_config().members == DEFAULT
    assert [spec(name).share for name in DEFAULT] == [0.25, 0.25, 0.30, 0.20]


def test_each_member_says_what_it_reads():
    """Stock PatchTST and DLinear see returns alone, and say so."""
    said = {name: spec(name).consumes for name in names()}

    assert all(said.values())
    assert "returns alone" in said["patchtst"]
    assert "returns alone" in said["dlinear"]


def test_a_new_file_is_a_new_member(toy, tmp_path):
    """A file in the folder can be named, trained, exported, weighed and loaded; nothing else had to change."""
    config = small_config(members=("linear", toy), weighting="fixed")
    report = train_candidate(make_frames(series=2, candles=1500), config, tmp_path / "bundle", silent)
    loaded = load_bundle(tmp_path / "bundle", expected_fingerprint=FINGERPRINT)

    assert toy in names()
    assert loaded.weights == pytest.approx({"linear": 1 / 3, "toy": 2 / 3})
    assert [one.consumes for one in report.members][1] == "one input"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "xgboost,oracle", r"Unknown member 'oracle'; choose from dlinear, forest, .*xgboost", id="unknown"
        ),
        pytest.param("base", "Unknown member 'base'", id="a-file-that-is-no-member"),
        pytest.param("../xgboost", "Unknown member", id="a-path"),
        pytest.param("xgboost,xgboost", "xgboost was named twice", id="twice"),
        pytest.param(" , ", "at least one member", id="none"),
    ],
)
def test_names_that_cannot_be_used_are_refused(text, message):
    """The error names what was wrong and what there is."""
    with pytest.raises(BadInputError, match=message):
        parse_members(text)


def test_names_are_read_as_people_write_them():
    """Spaces do not matter, order does."""
    assert parse_members(" lightgbm , xgboost,") == ("lightgbm", "xgboost")
    assert checked(["mlp"]) == ("mlp",)


def test_listing_members_loads_none():
    """Names come from the files: neither torch nor scikit-learn is imported for them."""
    code = "import sys; from flows.training.members.catalogue import names; assert len(names()) >= 8; "
    code += "print({'torch', 'neuralforecast', 'sklearn', 'xgboost'} & set(sys.modules))"
    root = Path(catalogue.__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=root
    )

    assert done.stdout.strip() == "set()"
