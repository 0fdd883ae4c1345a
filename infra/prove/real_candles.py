"""Recorded candles of real markets through the whole system; whatever the gates decide, the report says it plainly."""

from __future__ import annotations

import os
from pathlib import Path

from infra.prove.demonstration import play
from infra.prove.proof import Proof, Size
from infra.sandbox.market.recording import RecordingError, contents

SYMBOLS = {Size.FULL: 48, Size.CI: 12}
_TRADED_MS = 300_000  # The demonstration trades candles of five minutes; coarser ones cannot become those.


def prove(size: Size) -> Proof:
    """Replay a recording from MARKET_DATA_DIR with at least forty-eight symbols in full, twelve in CI, if there is."""
    folder = os.environ.get("MARKET_DATA_DIR")
    bar = "runs to the end, exit 0 or 3, and says what the gates decided"
    if not folder:
        return Proof(name="real-candles", figure="MARKET_DATA_DIR names no folder", bar=bar, holds=False)
    found = recording_in(Path(folder), SYMBOLS[size])
    if found is None:
        figure = f"{folder} holds no candles of five minutes or less that can be replayed"
        return Proof(name="real-candles", figure=figure, bar=bar, holds=False)
    path, symbols = found
    played = play("real-candles", "--replay", str(path), "--minutes", "4" if size is Size.CI else "10")
    verdict = played.report.get("verdict")
    said = verdict in ("passed", "held", "refused") and (verdict == "passed" or bool(played.report.get("gate_reasons")))
    ended = played.status in (0, 3)
    return Proof(
        name="real-candles",
        figure=f"exit {played.status} in {played.seconds:.0f} s on {path.name}, {symbols} symbols, gates: {verdict}",
        bar=bar,
        holds=ended and said,
        details=played.story,
    )


def recording_in(folder: Path, wanted: int) -> tuple[Path, int] | None:
    """
    Return what to replay and how many symbols that has: a file, or the whole folder where they are one to a file.

    It has the fewest symbols of those that have enough, else the most; among equals the first by name, a file first.
    """
    files = sorted(path for path in folder.glob("*") if path.suffix in {".parquet", ".csv"})
    counts = {path: _symbols(path) for path in (*files, folder)}
    enough = [path for path, count in counts.items() if count >= wanted]
    path = min(enough, key=counts.__getitem__) if enough else max(counts, key=counts.__getitem__)
    return (path, counts[path]) if counts[path] else None


def _symbols(path: Path) -> int:
    try:
        timeframe_ms, symbols = contents(path)
    except RecordingError:
        return 0
    return 0 if _TRADED_MS % timeframe_ms else len(symbols)
