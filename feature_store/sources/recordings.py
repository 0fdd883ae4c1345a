"""Recordings of candles, Parquet or CSV files that hold many series each, as a source to import from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from feature_store.candle import CandleBlock, Series
from feature_store.sources.columns import ColumnMap
from feature_store.sources.importing import Part, Selection
from feature_store.sources.mapped import LAYOUT, MappedFiles
from feature_store.sources.recorded import LacksColumnsError, files_of, read_file, unified_name


@dataclass(frozen=True, slots=True)
class Recordings:
    """One recording, or a folder of them."""

    path: Path
    selection: Selection = field(default_factory=Selection)

    @property
    def origin(self) -> str:
        """The resolved path."""
        return str(self.path.resolve())

    @property
    def layout(self) -> str:
        """What the files hold."""
        return LAYOUT

    def missing(self, _parts: Sequence[Part]) -> Sequence[str]:
        """Return nothing: what is not there was not promised."""
        return ()

    def parts(self, _selection: Selection) -> Sequence[Part]:
        """Return the files; which series they hold is known when they are read."""
        found = []
        for path in files_of(self.path):
            status = path.stat()
            found.append(Part(str(path), f"{status.st_size}-{status.st_mtime_ns}"))
        return found

    def read(self, part: Part) -> Iterator[tuple[Series, CandleBlock]]:
        """
        Yield the series of a recording under unified names, each in order of time.

        What a file does not say in a column, its venue, symbol or timeframe, the selection says.
        """
        try:
            for recorded, block in read_file(Path(part.name)):
                venue, symbol = unified_name(recorded.venue, recorded.symbol)
                yield Series(venue, symbol, recorded.timeframe), block
        except LacksColumnsError:
            # Nothing was yielded by then.
            yield from MappedFiles(self.path, ColumnMap({}), self.selection).read(part)
