"""The tear sheet of a backtest: quantstats' page of daily returns, whole in one file that opens offline."""

from __future__ import annotations

import re
import tempfile
import warnings
from pathlib import Path

import numpy as np

from flows.replay.metrics import DAYS_PER_YEAR, daily_returns
from flows.replay.outcome import BacktestRun

# quantstats draws densities and yearly tables; of fewer days there is nothing to draw.
MIN_DAYS = 3
_REMOTE = re.compile(r"<(?:link|script)[^>]*(?:href|src)=[\"']https?://[^>]*>(?:</script>)?", re.IGNORECASE)


def tear_sheet(run: BacktestRun, title: str) -> str | None:
    """Return the page, or None where the run is shorter than three days or never moved."""
    days, returns = daily_returns(run.time_ms, run.equity)
    if len(returns) < MIN_DAYS or not returns.any():
        return None
    import matplotlib as mpl  # noqa: PLC0415 - seconds of imports, asked for only where a page is made

    mpl.use("Agg")
    import pandas as pd  # noqa: PLC0415 - as above

    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        # It warns of its own divisions by zero, and libraries of each other.
        warnings.simplefilter("ignore")
        from quantstats import reports  # noqa: PLC0415 - as above

        index = pd.DatetimeIndex(np.asarray(days).astype("datetime64[D]").astype("datetime64[ns]"))
        target = Path(folder) / "tear-sheet.html"
        with np.errstate(all="ignore"):
            reports.html(
                pd.Series(returns, index=index, name="Strategy"),
                title=title,
                output=str(target),
                periods_per_year=DAYS_PER_YEAR,
            )
        page = target.read_text(encoding="utf-8")
    page = _REMOTE.sub("", page)
    # Its page calls a function that it does not have, and takes a per cent sign that few fonts know.
    return page.replace(' onload="save()"', "").replace("\N{SMALL PERCENT SIGN}", " %")
