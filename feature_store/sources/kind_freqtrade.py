"""Funding rates and mark prices that freqtrade downloaded beside its candles."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from feature_store.candle import Timeframe
from feature_store.errors import BadInputError, UnknownTimeframeError
from feature_store.kinds.definition import FUNDING, MARK, Kind, Subject
from feature_store.kinds.records import Records
from feature_store.sources.freqtrade import candles_in, files_of
from feature_store.sources.importing import Part
from feature_store.sources.kind_importing import Held, KindSelection

_NAME = re.compile(
    r"(?P<base>[A-Za-z0-9]+)_(?P<quote>[A-Za-z0-9]+)_(?P<settle>[A-Za-z0-9]+)-(?P<timeframe>\d+[a-zA-Z]{1,2})-"
    r"(?P<kind>funding_rate|mark)\.(?:feather|parquet|json|json\.gz)"
)
_KINDS = {"funding_rate": FUNDING, "mark": MARK}


@dataclass(frozen=True, slots=True)
class FreqtradeKinds:
    """A data folder of freqtrade, a folder above it, or a file; `<PAIR>-<timeframe>-funding_rate.feather`, `-mark`."""

    path: Path

    @property
    def origin(self) -> str:
        """The resolved path."""
        return str(self.path.resolve())

    def parts(self, selection: KindSelection) -> Sequence[Part]:
        """Return the files of selected kinds; candles, trades, and mark prices in timeframes we lack are left out."""
        found = []
        for path in files_of(self.path):
            named = _named(path)
            if named is not None and selection.stored_as(*named) is not None:
                status = path.stat()
                found.append(Part(str(path), f"{status.st_size}-{status.st_mtime_ns}"))
        return found

    def read(self, part: Part) -> Iterator[Held]:
        """Yield what a file holds."""
        path = Path(part.name)
        named, block = _named(path), candles_in(path)
        if named is None or len(block) == 0:
            raise BadInputError(f"{path} holds no funding rate and no mark price")
        kind, subject = named
        open_, high, low, close, _ = block.values.T
        if kind is MARK:
            yield Held(subject, Records.of(MARK, block.open_time_ms, open=open_, high=high, low=low, close=close))
            return
        # The rate stands where candles have their open; the venue stamps it some milliseconds late.
        times = block.open_time_ms // FUNDING.grid_ms * FUNDING.grid_ms
        yield Held(subject, Records.of(FUNDING, times, funding_rate=open_))


def _named(path: Path) -> tuple[Kind, Subject] | None:
    """Return what a file's name states, None where it is neither funding rates nor mark prices."""
    name = _NAME.fullmatch(path.name)
    if name is None:
        return None
    kind = _KINDS[name["kind"]]
    try:
        timeframe = Timeframe.parse(name["timeframe"]) if kind.has_timeframe else None
    except UnknownTimeframeError:
        return None
    folder = (path.parent.parent if path.parent.name == "futures" else path.parent).name
    venue = "binanceusdm" if folder == "binance" and name["settle"] in ("USDT", "USDC") else folder
    return kind, Subject(venue, f"{name['base']}/{name['quote']}:{name['settle']}", timeframe)
