"""`qtctl export`: what the journal says, in files for other programs."""

from __future__ import annotations

import json as json_codec
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from feature_store.errors import BadInputError
from feature_store.terminal import OK, help_end
from flows.settings import FlowSettings

export = App(
    name="export",
    help_format="plaintext",
    help_epilogue=help_end(
        "qtctl export --parquet /tmp/journal",
        "qtctl export --parquet /tmp/journal --journal /backup/journal/journal.jsonl --json",
        statuses={
            0: "the files are written",
            1: "failed: the journal is damaged, or of another version",
            2: "bad usage: an unknown option, no journal, or no place to write to",
        },
        as_json=True,
    ),
)


@export.default
def _export(
    *,
    parquet: Path | None = None,
    journal: Path | None = None,
    home: Path | None = None,
    json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """
    Write the journal and its tables as Parquet, for DuckDB and other programs.

    The file journal.parquet holds every entry, chained as it is, and one file for each table of 'qtctl db' what those
    entries make, with money as DECIMAL(38, 18). No server and no database needed; a worker may write meanwhile.

    Args:
        parquet: Folder for the files, those of the same names are replaced; by default the folder export of the home.
        journal: Journal file; by default journal/journal.jsonl in the home folder.
        home: Folder of everything written; by default QUANTUM_HOME, else ./var.
        json: Print what was written, or the error, as one JSON document and nothing else; by default words.
    """
    try:
        from flows.journal_export import export_parquet  # noqa: PLC0415 - --help stays quick
    except ModuleNotFoundError as error:
        raise BadInputError(
            f"qtctl export needs {error.name}, which is not installed; pip install 'quantum-trader[pipeline,storage]'"
        ) from error

    settings = FlowSettings.of()
    place = home or settings.home
    folder = parquet or place / "export"
    shadow = None if journal is not None else place / "shadow" / "journal"
    counts = export_parquet(journal or place / "journal" / "journal.jsonl", folder, shadow=shadow)
    shown = json_codec.dumps({"folder": str(folder), "rows": counts})
    if not json:
        shown = f"Wrote {counts['journal']} entries and {len(counts) - 1} tables into {folder}."
    print(shown)  # noqa: T201 - a command speaks to who typed it
    return OK
