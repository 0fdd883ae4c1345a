"""The catalogue says everything of every feature, and nothing that the definition does not."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from feature_store.candle import CandleBlock, Timeframe
from feature_store.errors import BadInputError
from feature_store.features.definition import FEATURE_NAMES, FEATURES, MODEL_INPUT_NAMES, MODEL_INPUTS, fingerprint
from feature_store.features.engine import FeatureEngine, model_inputs
from feature_store.features.explained import EXPLAINED
from feature_store.lake import CandleLake
from flows.catalogue.content import Catalogue, catalogue, features_read, the_49
from flows.catalogue.markdown import markdown
from flows.catalogue.page import page
from flows.catalogue.pictures import candlesticks, number, plot
from flows.catalogue.writing import candles_to_show, made_up, write_catalogue
from flows.feature_commands import catalogue as command
from flows.training.config import NHITS_INPUTS, TrainingConfig
from tests.feature_support import BTC, market

CONFIG = TrainingConfig(created_at="", code_version="")
CONTENT = catalogue(CONFIG)


def test_every_feature_is_explained_and_no_other():
    """Each of the 49 says what it tells and why it has its parameters."""
    assert set(EXPLAINED) == set(FEATURE_NAMES)
    for told in EXPLAINED.values():
        assert told.tells.endswith(".")
        assert told.parameters.endswith(".")


@pytest.mark.parametrize("feature", FEATURES, ids=lambda one: one.name)
def test_parameters_of_a_formula_are_given_a_reason(feature):
    """A number in a feature's name is in the reason for its parameters, or in what the reason is about."""
    told = EXPLAINED[feature.name].parameters
    numbers = re.findall(r"_(\d+)$", feature.name)

    assert all(re.search(rf"\b{one}\b", told) for one in numbers if feature.name != "log_return_6")


def test_every_input_names_features_and_every_model_says_what_it_reads():
    """An input is computed from features that exist; only four of the 49 have no input of their own."""
    unread = {one.name for one in CONTENT.chapters[0].entries if not one.inputs}

    assert [one.name for one in CONTENT.inputs] == [one.name for one in MODEL_INPUTS]
    assert all(one.reads for one in CONTENT.inputs)
    assert unread == {"volume", "volume_sma_20", "obv", "vpt"}
    assert [one.model for one in CONTENT.consumers] == ["XGBoost", "LightGBM", "N-HiTS", "PatchTST"]
    assert {one.name for one in CONTENT.inputs if "N-HiTS" in one.consumers} == set(NHITS_INPUTS)
    assert features_read("(hv_20 - hv_60) / (hv_20 + hv_60), hv for historical_volatility") == (
        "historical_volatility_20",
        "historical_volatility_60",
    )


def test_page_and_markdown_hold_every_feature_and_input(tmp_path):
    """All is written: each feature with formula and plot, each input, the fingerprint."""
    shown = candles_to_show(CandleLake(tmp_path / "lake"), None, Timeframe.M5)
    done = write_catalogue(tmp_path / "out", CONFIG, shown)
    html, text = (tmp_path / "out" / "features.html").read_text(), (tmp_path / "out" / "features.md").read_text()

    assert (done.features, done.model_inputs) == (49, len(MODEL_INPUTS))
    for feature in FEATURES:
        assert f'data-feature="{feature.name}"' in html
        assert f"#### {feature.name}" in text
        picture = (tmp_path / "out" / "plots" / f"{feature.name}.svg").read_text()
        assert picture.startswith("<svg")
        assert "nan" not in picture
        assert picture in html
    assert all(f'id="input-{one.name}"' in html and f"`{one.name}`" in text for one in MODEL_INPUTS)
    assert html.count(fingerprint()) == 1
    assert not re.search(r"""(src|href)=["']?https?:""", html)


def test_the_lake_and_a_recording_are_drawn_where_there_are_some(tmp_path):
    """Stored candles come before made-up ones, a named recording before stored ones."""
    lake = CandleLake(tmp_path / "lake")
    lake.append(BTC, made_up(BTC.timeframe))
    recording = tmp_path / "candles.csv"
    block = made_up(Timeframe.H1)
    rows = [f"kraken,ETH/USD,1h,{t},{','.join(map(repr, v))}" for t, v in zip(
        block.open_time_ms.tolist(), block.values.tolist(), strict=True)]  # fmt: skip
    recording.write_text("\n".join(["exchange,symbol,timeframe,ts,open,high,low,close,volume", *rows]))

    stored, recorded = candles_to_show(lake, None, BTC.timeframe), candles_to_show(lake, recording, BTC.timeframe)

    assert BTC.symbol in stored.words
    assert "of the lake" in stored.words
    assert recorded.timeframe is Timeframe.H1
    assert "kraken" in recorded.words
    assert candles_to_show(lake, None, Timeframe.D1).words.endswith("no candles are stored yet")


def test_a_recording_that_is_too_short_is_refused(tmp_path):
    """A plot of three candles shows nothing: the recording is refused with what is expected."""
    short = tmp_path / "short.csv"
    short.write_text(
        "exchange,symbol,timeframe,ts,open,high,low,close,volume\nkraken,ETH/USD,1h,1735689600000,1,2,1,2,5\n"
    )

    with pytest.raises(BadInputError, match="400 candles or more"):
        candles_to_show(CandleLake(tmp_path / "lake"), short, Timeframe.M5)


def test_what_a_feature_says_of_itself_is_text_and_never_markup():
    """A formula with a tag, or a pipe, is shown as it is written."""
    evil = replace(the_49().entries[0], name="evil", formula="<script>alert(1)</script> | a < b", family="mine")
    chapter = replace(the_49(), title="Mine & <b>yours</b>", entries=(evil,))
    content = Catalogue((the_49(), chapter), CONTENT.inputs, CONTENT.consumers, CONTENT.input_note)
    plots = dict.fromkeys((*FEATURE_NAMES, "evil"), "<svg></svg>")

    html = page(content, plots, market="", candles="<i>nothing</i>")
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html
    assert "<b>yours" not in html
    assert "<i>nothing" not in html
    assert "\\| a < b" in markdown(content, candles="none")


def test_plots_bear_what_markets_do():
    """Values that are all NaN, all the same, or known once only are drawn or said, without an error."""
    block = made_up(Timeframe.M5)[:50]
    once = np.where(np.arange(50) == 7, 3.0, np.nan)

    assert "still warming up" in plot(block, np.full(50, np.nan), name="a", colour="#000")
    assert "nan" not in plot(block, np.full(50, 2.0), name="a", colour="#000")
    assert "nan" not in plot(block, once, name="a", colour="#000")
    assert "nan" not in plot(block[:1], np.ones(1), name="a", colour="#000")
    assert candlesticks(block[:0]) == ""


@pytest.mark.parametrize(
    ("value", "spread", "shown"), [(0.0, 1.0, "0.00"), (61234.5, 900.0, "61,234"), (2.5e-7, 1e-7, "2.50e-07"),
                                   (0.01234, 0.01, "0.0123"), (5.0, 0.0, "5.00")],
)  # fmt: skip
def test_axis_numbers_have_the_digits_that_tell_them_apart(value, spread, shown):
    """Neither a price of sixty thousand nor a return of a hundredth is written with useless digits."""
    assert number(value, spread) == shown


def test_the_command_writes_and_says_where(tmp_path, monkeypatch, capsys):
    """Without a server or any candles the command writes the page and names it."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))

    assert command(["--json"], exit_on_error=False, result_action="return_value") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["html"] == str(tmp_path / "catalogue" / "features.html")
    assert said["features"] == 49


def _inputs_when(still_from: int, *, moves: int = 1_000) -> dict[str, list[float]]:
    """Return each model input over a market that stands still from some candle on."""
    block = market(moves, seed=1)
    values = block.values.copy()
    values[still_from:, :4] = values[max(still_from - 1, 0), 3]
    inputs = model_inputs(FeatureEngine(Timeframe.M5).advance(CandleBlock(block.open_time_ms, values)))
    return {name: inputs[:, column].tolist() for column, name in enumerate(MODEL_INPUT_NAMES)}


def test_what_a_still_market_reads_as_is_what_the_catalogue_says():
    """From the candle that each explanation names on, models read the extreme that it names, and not before."""
    came, never = _inputs_when(200), _inputs_when(0)
    said = {"stochastic_k": (16, -1), "stochastic_d": (18, -1), "williams_r": (14, 1), "mfi": (15, -1)}
    for name, (candles, extreme) in said.items():
        told = EXPLAINED[f"{name}_14" if f"{name}_14" in EXPLAINED else name].still
        assert f"stood still for {candles} candles" in told
        assert f"models read {extreme}," in told
        assert came[name][199 + candles :] == pytest.approx([extreme] * (801 - candles), abs=1e-6)
        assert came[name][198 + candles] != pytest.approx(extreme, abs=1e-6)
        assert never[name][-1] == extreme
    assert came["rsi"][200] == came["rsi"][199 + 250] != -1
    assert came["rsi"][-1] == never["rsi"][-1] == never["adx"][-1] == -1
    assert -1 < came["adx"][-1] < 0
    assert 20 in map(abs, came["trend"])
    block = market(60, seed=1)
    untraded = np.column_stack([block.values[:, :4], np.zeros(60)])
    inputs = model_inputs(FeatureEngine(Timeframe.M5).advance(CandleBlock(block.open_time_ms, untraded)))
    assert inputs[-1, MODEL_INPUT_NAMES.index("mfi")] == -1
    assert came["trend"][-1] == never["trend"][-1] == 0


def test_the_catalogue_tells_what_a_still_market_reads_as():
    """The feature's own entry and the note on inputs say it, where the policy alone would say 0."""
    entries = {one.name: one for one in CONTENT.chapters[0].entries}
    for name in ("rsi_14", "stochastic_k", "stochastic_d", "adx_14", "mfi_14", "williams_r_14", "trend_strength"):
        assert EXPLAINED[name].still.endswith(".")
        assert EXPLAINED[name].still in entries[name].nan_policy
    assert entries["close"].nan_policy == FEATURES[3].nan_policy
    assert "rsi, stochastic_k, stochastic_d, adx and mfi are -1, and williams_r is 1" in CONTENT.input_note
