"""`python -m infra.prove.feature_process WHO LAKE TARGET`: a lake's candles to Parquet files of the 49."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from feature_store.lake import CandleLake


def ours(lake: Path, target: Path) -> None:
    """Compute with the kernel, as `qtctl features export` does."""
    from feature_store.feature_stream import FeatureStream  # noqa: PLC0415 - each imports what it needs

    store = CandleLake(lake)
    FeatureStream(store, target).run(store.series())


def by_talib(lake: Path, target: Path) -> None:
    """Read and write as ours does, on as many threads; TA-Lib computes."""
    import threading  # noqa: PLC0415

    import pyarrow as pa  # noqa: PLC0415

    from feature_store.feature_files import write_sheet  # noqa: PLC0415
    from feature_store.files import Sheet, replacing  # noqa: PLC0415
    from infra.prove.peer_talib import by_arrays  # noqa: PLC0415

    store, local = CandleLake(lake), threading.local()

    def one(series: Any) -> None:
        rows = store.read_rows(series).latest()
        if not hasattr(local, "sheet"):
            local.sheet = Sheet()
        local.sheet.make_room(len(rows) * 51 * 9 + (1 << 18))
        sink = pa.FixedSizeBufferWriter(pa.py_buffer(local.sheet.memory))
        computed = by_arrays(rows.block.values)
        write_sheet(sink, [(rows.block.open_time_ms, rows.available_at_ms, computed)], "talib")
        with replacing(target / f"{series.symbol.replace('/', '-')}.parquet", is_synced=False) as temporary:
            local.sheet.write(temporary, sink.tell())

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, store.series()))


def by_polars(lake: Path, target: Path) -> None:
    """Read all with Polars, compute expressions over the symbol, write one file without compression, as ours."""
    import polars as pl  # noqa: PLC0415

    from infra.prove.peer_expressions import by_polars as expressions  # noqa: PLC0415

    frame = pl.scan_parquet(lake / "**" / "*.parquet", hive_partitioning=True).sort("symbol", "open_time")
    first = pl.when(pl.int_range(pl.len()).over("symbol") == 0).then(pl.col("volume")).otherwise(0.0)
    result = expressions(frame.with_columns(first=first)).collect()
    result.write_parquet(target / "all.parquet", compression="uncompressed")


def by_freqai(lake: Path, target: Path) -> None:
    """Compute series by series with talib.abstract on frames, as FreqAI does; write them by the defaults of pandas."""
    _by_freqai(lake, target, {})


def by_freqai_plainly(lake: Path, target: Path) -> None:
    """Do the same, but let pyarrow build no dictionaries of prices, which its defaults do at half of the time."""
    _by_freqai(lake, target, {"use_dictionary": False})


def _by_freqai(lake: Path, target: Path, options: dict[str, Any]) -> None:
    import pandas as pd  # noqa: PLC0415

    from infra.prove.peer_talib import by_frames  # noqa: PLC0415

    for folder in sorted(lake.glob("*/*/symbol=*")):
        parts = [pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))]
        frame = pd.concat(parts, ignore_index=True)
        by_frames(frame).to_parquet(target / f"{folder.name}.parquet", compression=None, index=False, **options)


WHO = {"ours": ours, "talib": by_talib, "polars": by_polars, "freqai": by_freqai, "freqai-plain": by_freqai_plainly}


if __name__ == "__main__":
    WHO[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
