"""Recorded candles of real markets through the whole system; whatever the gates decide, the report says it plainly."""

from __future__ import annotations

import os
from pathlib import Path

from infra.prove.demonstration import play
from infra.prove.proof import Proof, Size

# Any recording will do; these are tried in order, so that the proof needs no list of what a folder holds.
RECORDINGS = {
    Size.FULL: "binance_spot_5m_2022-10_2023-03_broad.parquet",
    Size.CI: "binance_spot_5m_2022-01_2022-09.parquet",
}


def prove(size: Size) -> Proof:
    """Replay a recording from MARKET_DATA_DIR: forty-eight symbols in full, twelve in CI."""
    folder = os.environ.get("MARKET_DATA_DIR")
    bar = "runs to the end, exit 0 or 3, and says what the gates decided"
    if not folder:
        return Proof(name="real-candles", figure="MARKET_DATA_DIR names no folder", bar=bar, holds=False)
    path = Path(folder) / RECORDINGS[size]
    played = play("real-candles", "--replay", str(path), "--minutes", "4" if size is Size.CI else "10")
    verdict = played.report.get("verdict")
    said = verdict in ("passed", "refused") and (verdict == "passed" or bool(played.report.get("gate_reasons")))
    ended = played.status in (0, 3)
    return Proof(
        name="real-candles",
        figure=f"exit {played.status} in {played.seconds:.0f} s on {path.name}, gates: {verdict}",
        bar=bar,
        holds=ended and said,
        details=played.story,
    )
