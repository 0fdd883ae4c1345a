"""What the kept model bundles say of themselves."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from feature_store.errors import BadInputError
from inference.domain.errors import BundleError
from inference.models.bundle import read_manifest
from inference.models.registry import BundleCache
from inference.telemetry.printed import print_json


def list_bundles(root: Path, *, as_json: bool) -> int:
    """Print the kept bundles."""
    last_good = BundleCache(root).last_good()
    rows: list[dict[str, object]] = []
    for folder in sorted(root.glob("*/manifest.json")):
        digest = folder.parent.name
        try:
            manifest = read_manifest(folder.parent)
        except BundleError as error:
            rows.append({"digest": digest, "unusable": str(error)})
            continue
        traded_last = last_good is not None and last_good.digest == digest
        rows.append(
            {
                "digest": digest,
                "created_at": manifest.created_at,
                "members": [member.name for member in manifest.members],
                "threshold": manifest.threshold,
                "traded_last": traded_last,
                "version": last_good.version if traded_last and last_good else None,
            }
        )
    if as_json:
        print_json(rows)
        return 0
    table = Table("digest", "created", "members", "threshold", "traded last")
    for row in rows:
        members = row.get("members")
        table.add_row(
            str(row["digest"])[:16],
            str(row.get("created_at", row.get("unusable", ""))),
            ", ".join(members) if isinstance(members, list) else "",
            str(row.get("threshold", "")),
            f"yes, as version {row['version']}" if row.get("traded_last") else "",
        )
    Console().print(table)
    return 0


def show(root: Path, digest: str, *, as_json: bool) -> int:
    """Print one bundle's manifest."""
    found = sorted(folder for folder in root.glob(f"{digest}*") if (folder / "manifest.json").is_file())
    if len(found) != 1:
        raise BadInputError(
            f"Expected one bundle whose digest begins with {digest!r} under {root}, found {len(found)};"
            " see `qtctl models ls`"
        )
    manifest = read_manifest(found[0])
    if as_json:
        print_json(manifest)
        return 0
    sys.stdout.write(f"digest      {found[0].name}\n")
    for name in ("created_at", "code_version", "feature_fingerprint", "timeframe", "horizon", "threshold"):
        sys.stdout.write(f"{name:<20}{getattr(manifest, name)}\n")
    for member in manifest.members:
        sys.stdout.write(f"member              {member.name} ({member.kind}), weight {member.weight:.3f}\n")
    for name, value in sorted(manifest.metrics.items()):
        sys.stdout.write(f"{name:<40}{value:.6g}\n")
    return 0
