"""Evidently's page of a drift check: distributions then and now, with the limits that our check calibrated."""

from __future__ import annotations

import warnings

import numpy as np

from flows.drifting.check import DriftReport
from flows.observing import Sample

# A column with fewer values than this on either side has nothing to draw.
_FEWEST_VALUES = 20


def evidently_page(report: DriftReport, sample: Sample) -> str | None:
    """
    Return a page (HTML, readable without a network) of a sample of rows, None where there is nothing to draw.

    Evidently measures Wasserstein distances in standard deviations, as we do; its thresholds are our limits, so that it
    calls a column drifted where the check does, up to what a sample of rows makes of it.
    """
    drawn = [place for place in range(len(sample.columns)) if _has_values(sample, place)]
    if not drawn:
        return None
    import pandas as pd  # noqa: PLC0415 - a second and 200 MB that only this page needs
    from evidently import DataDefinition, Dataset, Report  # noqa: PLC0415 - as above
    from evidently.presets import DataDriftPreset  # noqa: PLC0415 - as above

    names = [sample.columns[place] for place in drawn]
    limits = {
        one.name: one.limits["wasserstein"]
        for group in report.groups
        for one in group.columns
        if one.limits and one.name in names
    }
    definition = DataDefinition(numerical_columns=names)
    before, now = (
        Dataset.from_pandas(pd.DataFrame(table[:, drawn], columns=names), data_definition=definition)
        for table in (sample.before, sample.now)
    )
    preset = DataDriftPreset(columns=names, method="wasserstein", per_column_threshold=limits)
    with warnings.catch_warnings():
        # It divides by the spread of columns that hardly vary, and its libraries announce what they will drop.
        warnings.simplefilter("ignore")
        found = Report([preset]).run(current_data=now, reference_data=before)
        page: str = found.get_html_str(as_iframe=False)
    return page


def _has_values(sample: Sample, place: int) -> bool:
    both = (sample.before[:, place], sample.now[:, place])
    return all(int(np.isfinite(values).sum()) >= _FEWEST_VALUES for values in both)
