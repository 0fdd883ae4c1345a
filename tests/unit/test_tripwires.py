"""Each tripwire on figures written out: what trips it, what does not, and what it says."""

from __future__ import annotations

import pickle

import pytest

from flows.evidence import stopped_markdown
from flows.training.tripwire_bounds import TripwireBounds
from flows.training.tripwires import (
    Asked,
    TripwireError,
    check_coverage,
    check_outcomes,
    check_scores,
    check_shuffled,
    stop_on,
)

BOUNDS = TripwireBounds()


@pytest.mark.parametrize(
    ("metrics", "trips"),
    [
        pytest.param({"ic_low": 0.51}, True, id="correlation"),
        pytest.param({"ic_low": 0.5, "ic": 0.9}, False, id="chance-may-reach-it"),
        pytest.param({"rmse_skill_low": 0.14}, True, id="a-quarter-of-the-variance"),
        pytest.param({"rmse_skill_low": 0.13}, False, id="less-variance"),
        pytest.param({"rmse_skill_low": -9.0}, False, id="no-skill"),
        pytest.param({"hit_rate_low": 0.71}, True, id="hit-rate"),
        pytest.param({"hit_rate_low": float("nan")}, False, id="no-interval"),
        pytest.param({}, False, id="no-figure"),
    ],
)
@pytest.mark.parametrize("window", ["validation", "calibration"])
def test_a_score_too_good_to_be_true(window, metrics, trips):
    """The lower end of the interval is what counts, on both windows, of whoever is named."""
    found = check_scores({f"{window}/ridge/{name}": value for name, value in metrics.items()}, ["ridge"], BOUNDS)

    assert [trip.wire for trip in found] == ["too_good"] * trips
    assert all(f"of ridge on the {window} window" in trip.told for trip in found)
    assert not check_scores({f"{window}/other/{name}": value for name, value in metrics.items()}, ["ridge"], BOUNDS)


@pytest.mark.parametrize(
    ("z", "ic", "trips"), [(6.1, 0.06, True), (6.1, 0.04, False), (5.9, 0.3, False), (float("nan"), 0.3, False)]
)
def test_shuffled_labels_that_still_predict(z, ic, trips):
    """It takes both: far from zero, and far enough to matter."""
    found = check_shuffled({"leakage/shuffled_label_z": z, "leakage/shuffled_label_ic": ic}, BOUNDS)

    assert [trip.wire for trip in found] == ["shuffled_labels"] * trips
    assert check_shuffled({}, BOUNDS) == []


def test_too_few_outcomes_for_the_claim():
    """What thirty outcomes can tell is said with the figure; a window without any trips as well."""
    found = check_outcomes({"validation": 29.0, "calibration": 30.0, "other": float("nan")}, BOUNDS)

    assert [trip.wire for trip in found] == ["too_few_outcomes"] * 2
    assert "the validation window holds 29 independent outcomes, 30 are needed" in found[0].told
    assert "±0.36" in found[0].told


def test_coverage_short_of_what_was_asked():
    """Windows with holes, fewer days and fewer series each say what there is and what to do."""
    found = check_coverage(
        {"fit": 0.79, "shadow": 0.8}, BOUNDS, Asked(days=30, series=10), days=26.9, series=4
    )  # fmt: skip

    assert [trip.wire for trip in found] == ["coverage"] * 3
    assert [trip.told for trip in found] == [
        "only 79% of the candles of the fit window are there with their whole past",
        "30 days were asked for, 26.9 can be learned from",
        "10 series were asked for, 4 can be learned from",
    ]
    assert check_coverage({"fit": 1.0}, BOUNDS, Asked(days=30, series=10), days=27, series=5) == []
    assert check_coverage({"fit": 1.0}, BOUNDS, Asked(days=30, series=0), days=30, series=1) == []
    assert check_coverage({"fit": 1.0}, BOUNDS, None, days=1, series=1) == []


def test_a_run_is_stopped_by_name_with_what_to_do():
    """The error names each wire once, says that nothing was registered, and crosses processes as it is."""
    stop_on([])
    trips = check_outcomes({"validation": 1.0, "calibration": 2.0}, BOUNDS)
    trips += check_shuffled({"leakage/shuffled_label_z": 9, "leakage/shuffled_label_ic": 0.2}, BOUNDS)
    with pytest.raises(TripwireError, match=r"tripwire too_few_outcomes: .*What to do: load more days") as caught:
        stop_on(trips)

    assert caught.value.wires == ("too_few_outcomes", "shuffled_labels")
    assert str(caught.value).startswith("Training was stopped, nothing was registered.")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.trips, str(again)) == (caught.value.trips, str(caught.value))
    page = stopped_markdown(caught.value)
    assert "Training was stopped: too_few_outcomes, shuffled_labels" in page
    assert page.count("load more days with --days") == 2
