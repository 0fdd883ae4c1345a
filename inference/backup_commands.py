"""`qtctl backup` and `qtctl restore`: a home copied while it trades, and made again from the copy."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from feature_store.clock import utc_now
from feature_store.errors import BadInputError
from feature_store.terminal import help_end
from inference.settings import Settings

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON for machines; by default words.")]

backup = App(
    name="backup",
    help="""Back up a home while everything in it goes on.

Journals are cut at a whole entry and proved, SQLite files copied by SQLite's own backup, all else file by file. Left
out are the tables (`qtctl db rebuild` makes them from the journal), logs, candles (see --lake) and features, which are
asked for or computed again, and the sandbox exchange, which is the venue. The folder can be read by its owner alone and
is not encrypted; keep it where that is enough.""",
    help_format="plaintext",
    help_epilogue=help_end(
        "qtctl backup --keep 14",
        "qtctl backup --to /mnt/backups --keep 14 --json | jq -r .folder",
        statuses={
            0: "made, and read back",
            1: "nothing was made: there is no home, something in it is damaged, or there is no room",
        },
        as_json=True,
    ),
)
restore = App(
    name="restore",
    help="""Make a home from a backup, or only prove the backup whole.

Every file's digest and every journal's chain are checked first. A home that holds anything is refused. A worker that is
started in the restored home reconciles with the venue: what it traded since the backup is found there, and ended under
its own stop.""",
    help_format="plaintext",
    help_epilogue=help_end(
        "qtctl restore var/backups/backup-20261130T085619Z --check",
        "qtctl restore /mnt/backups/backup-20261130T085619Z --home var",
        statuses={
            0: "restored; with --check: whole",
            1: "the backup is not whole, or the home is not empty; nothing was changed",
        },
        as_json=True,
    ),
)


@backup.default
def make(
    *,
    to: Annotated[
        Path | None, Parameter(help="Folder in which backups lie; by default the folder backups of the home.")
    ] = None,
    keep: Annotated[
        int | None, Parameter(help="How many backups of this home stay there, the new one among them; by default all.")
    ] = None,
    lake: Annotated[bool, Parameter(negative="", help="Back up stored candles too; by default not.")] = False,
    home: Annotated[
        Path | None, Parameter(name="--home", help="The home to back up; by default QUANTUM_HOME, else ./var.")
    ] = None,
    json: Json = False,
) -> int:
    """Back up a home while everything in it goes on."""
    from inference.storage.backup import make_backup  # noqa: PLC0415 - only who runs it pays for its imports

    if keep is not None and keep < 1:
        raise BadInputError(f"--keep is how many backups stay, at least 1, was {keep}")
    made = make_backup(_home(home), to=to, now=utc_now(), program=_version(), keep=keep, with_lake=lake)
    journals = {name: note.entries for name, note in made.manifest.journals.items()}
    if json:
        _print_json(
            {
                "folder": str(made.folder),
                "manifest_sha256": made.sha256,
                "files": len(made.manifest.files),
                "bytes": made.bytes,
                "journals": journals,
                "left_out": made.manifest.left_out,
                "removed": made.removed,
            }
        )
        return 0
    _print(f"Backed up to {made.folder}")
    _print(f"{len(made.manifest.files)} files, {made.bytes / 2**20:.1f} MB; its list has the digest {made.sha256}")
    for name, entries in journals.items():
        _print(f"{name}: {entries} entries")
    for name in made.removed:
        _print(f"Removed {name}")
    return 0


@restore.default
def take(
    folder: Annotated[Path, Parameter(help="The backup: a folder that `qtctl backup` made.")],
    /,
    *,
    check: Annotated[
        bool, Parameter(negative="", help="Only prove the backup whole, restore nothing; by default restore.")
    ] = False,
    home: Annotated[
        Path | None, Parameter(name="--home", help="The home to make; by default QUANTUM_HOME, else ./var.")
    ] = None,
    json: Json = False,
) -> int:
    """Make a home from a backup, or only prove the backup whole."""
    from inference.storage import manifest as backups  # noqa: PLC0415 - as above
    from inference.storage.restore import restore as restored  # noqa: PLC0415 - as above

    target = _home(home)
    found = backups.check(folder) if check else restored(folder, target)
    journals = {name: note.entries for name, note in found.journals.items()}
    if json:
        _print_json(
            {
                "backup": str(folder),
                "restored_to": None if check else str(target),
                "made_at": found.made_at,
                "manifest_sha256": backups.digest_of(folder / backups.MANIFEST),
                "files": len(found.files),
                "journals": journals,
            }
        )
        return 0
    _print(f"Whole: {len(found.files)} files of {found.home}, backed up at {found.made_at}")
    for name, entries in journals.items():
        _print(f"{name}: {entries} entries")
    if not check:
        _print(f"Restored to {target}")
        _print("A worker that is started there reconciles with the venue first; `qtctl db rebuild` makes the tables.")
    return 0


def _home(given: Path | None) -> Path:
    return given or Path(os.environ.get("QUANTUM_HOME") or str(Settings.model_fields["home"].default))


def _version() -> str:
    try:
        return metadata.version("quantum-trader")
    except metadata.PackageNotFoundError:
        return "source"


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _print_json(document: object) -> None:
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    sys.stdout.flush()
