"""A model card: what a bundle is, what it was learned from, how well it did, and what it is not for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from inference.models.manifest import Manifest, TimeWindow

IN_SAMPLE = (
    "No member was fitted on these candles, so correlation and directional accuracy are out of sample. The ensemble's "
    "scale, probabilities and threshold were fitted on them and on validation, so errors, calibration, trades and "
    "drawdown are not, and flatter it. The gates go by the shadow window alone."
)
"""What the figures of the calibration window are worth; for reports of training too."""

_SCORES = (
    ("rmse", "RMSE of the log return"),
    ("r2", "R²"),
    ("ic", "correlation with the outcome"),
    ("hit_rate", "directional accuracy"),
    ("calibration_error", "calibration error"),
    ("brier", "Brier score"),
    ("net_per_trade_bps", "net of costs, bps per trade"),
    ("trades", "trades"),
    ("max_drawdown", "largest drawdown"),
)


def model_card(manifest: Manifest, digest: str) -> str:
    """Return the card of a bundle as Markdown, from its manifest and digest alone: the same bundle, the same card."""
    data = manifest.data_fingerprint
    return "\n\n".join([
        f"# Model card: {digest[:12]}",
        _what_it_does(manifest),
        "## Members",
        _table(
            ("member", "kind", "weight", "reads"),
            [(one.name, one.kind, f"{one.weight:.3f}", _reads(one.inputs)) for one in manifest.members],
        ),
        f"Weighting: {manifest.weighting}.",
        "## Learned from",
        _learned_from(manifest),
        "## On the calibration window",
        IN_SAMPLE,
        _table(("figure", "ensemble"), _scores(manifest)),
        _regimes(manifest),
        _readings(manifest),
        "## Limits",
        _limits(manifest),
        "## Identity",
        _table(
            ("what", "value"),
            [
                ("bundle digest", f"`{digest}`"),
                ("data fingerprint", f"`{data.digest}`" if data is not None else "unknown"),
                ("feature fingerprint", f"`{manifest.feature_fingerprint}`"),
                ("code", f"`{manifest.code_version}`"),
                ("created", manifest.created_at),
                ("manifest schema", str(manifest.schema_version)),
            ],
        ),
    ])  # fmt: skip


def _what_it_does(manifest: Manifest) -> str:
    return (
        f"Ensemble of {', '.join(one.name for one in manifest.members)}. It expects the log return over the next "
        f"{manifest.horizon} candles of {manifest.timeframe} and a calibrated probability of its direction; from a "
        f"probability of {manifest.threshold:.3f} on it is meant to be traded: of the thresholds tried, the middle of "
        f"those that paid best net of a round trip of {manifest.round_trip_cost * 1e4:g} bps on validation and "
        "calibration, or the most cautious one where none paid."
    )


def _reads(inputs: Sequence[str]) -> str:
    shown = ", ".join(inputs[:3])
    return shown if len(inputs) <= 3 else f"{shown} and {len(inputs) - 3} more"


def _learned_from(manifest: Manifest) -> str:
    windows, data = manifest.training, manifest.data_fingerprint
    what = f"{len(manifest.symbols)} symbols: {_some(manifest.symbols)}."
    if data is not None:
        moment = f", as of {data.as_of}" if data.as_of else ""
        members = ", those of a universe at each moment" if data.universe else ""
        what = f"{data.candles} candles of {len(manifest.symbols)} symbols{moment}{members}: {_some(manifest.symbols)}."
    return "\n\n".join([
        what,
        _table(
            ("window", "from", "to (UTC)"),
            [
                ("fit: members, scalers, regimes", *_span(windows.fit)),
                ("validation: weights, scale, probabilities, threshold", *_span(windows.validation)),
                ("calibration: scale, probabilities, threshold", *_span(windows.calibration)),
                ("shadow: seen by no part of it", *_span(windows.shadow)),
            ],
        ),
    ])  # fmt: skip


def _scores(manifest: Manifest) -> list[tuple[str, str]]:
    rows = []
    for name, words in _SCORES:
        value = manifest.metrics.get(f"calibration/ensemble/{name}")
        if value is None:
            continue
        low, high = (manifest.metrics.get(f"calibration/ensemble/{name}_{end}") for end in ("low", "high"))
        interval = f" (95 % from {low:.4g} to {high:.4g})" if low is not None and high is not None else ""
        rows.append((words, f"{value:.4g}{interval}"))
    return rows or [("none recorded", "")]


def _regimes(manifest: Manifest) -> str:
    if manifest.regime is None:
        return "Market regimes were not learned: every signal states the regime as unknown."
    shares = {
        name.split("/")[1]: value
        for name, value in manifest.metrics.items()
        if name.startswith("regime/") and name.endswith("/share") and value > 0
    }
    rows = [
        (regime.replace("_", ", "), f"{share:.1%}", _rate(manifest.metrics.get(f"regime/{regime}/hit_rate")))
        for regime, share in sorted(shares.items(), key=lambda one: -one[1])
    ]
    return _table(("market regime", "share of candles", "directional accuracy"), rows)


def _readings(manifest: Manifest) -> str:
    model, inputs = manifest.regime_model, manifest.trained_inputs
    regimes = "Nothing was learned to tell regimes by probability."
    if model is not None:
        doubted = manifest.metrics.get("regime_model/doubted")
        often = "" if doubted is None else f"; {doubted:.2%} of training's own candles would have been unknown"
        regimes = (
            f"Regimes with probabilities: {model.hidden.states} hidden states ({', '.join(model.names)}) beside rules, "
            f"for {len(model.scales)} symbols{often}."
        )
    ranges = "Nothing was learned of what inputs are like."
    if inputs is not None:
        later = manifest.metrics.get("inputs/later")
        found = "" if later is None else f" ({later:.2%} on later rows, out of sample)"
        ranges = (
            f"Ranges of the {len(inputs.names)} inputs that are read: {inputs.range_alarm:.1%} of training's rows "
            f"leave one; {inputs.distance_alarm:.1%} of rows are called far from training{found}."
        )
    return f"{regimes}\n\n{ranges}"


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _limits(manifest: Manifest) -> str:
    return (
        f"Not for other timeframes than {manifest.timeframe}, other features than its own, or series it cannot read "
        f"{manifest.window} candles of. Predictions beyond {manifest.max_abs_expected_return:.4g} are not believed. "
        "In notebooks, `mlflow.pyfunc.load_model` runs the code that was stored with the model before anything is "
        "checked; `load_verified` of `inference.telemetry.model_loading` runs none. "
        "Figures are of one past; the gates' verdict, below where there is one, says whether it may trade."
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:8])} and {len(names) - 8} more"


def _span(window: TimeWindow) -> tuple[str, str]:
    first, last = (
        datetime.fromtimestamp(one / 1000, UTC).strftime("%Y-%m-%d %H:%M") for one in (window.start_ms, window.end_ms)
    )
    return first, last


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
