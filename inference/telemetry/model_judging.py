"""Verifying a bundle, comparing two, and writing a bundle's card, for people and for machines."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from feature_store.extensions.settings import ViewSettings
from inference.models.bundle import inspect_files, load_bundle, read_manifest
from inference.models.card import model_card
from inference.models.comparison import SECTIONS, changes, flattened
from inference.models.inspection.contents import named_files
from inference.telemetry.model_reference import Places, found_bundle
from inference.telemetry.printed import print_json

_SHOWN = 60


def verify(reference: str, places: Places, *, as_json: bool) -> int:
    """Check a bundle as the worker does; an untrustworthy one is an error."""
    with found_bundle(reference, places) as found:
        digest = found.digest()
        bundle = load_bundle(
            found.path, expected_fingerprint=ViewSettings.of().view().fingerprint(), expected_digest=digest
        )
        files = [
            {"name": one.file.name, "kind": one.kind, "bytes": one.file.size} for one in named_files(bundle.manifest)
        ]
        data = bundle.manifest.data_fingerprint
        if as_json:
            print_json({
                "path": str(found.path),
                "version": None if found.version is None else found.version.version,
                "digest": digest,
                "verified": True,
                "files": files,
                "data_fingerprint": None if data is None else data.digest,
                "gate_verdict": None if found.version is None else found.version.tags.get("gate_verdict"),
            })  # fmt: skip
            return 0
        members = ", ".join(member.name for member in bundle.manifest.members)
        sys.stdout.write(
            f"Verified: {bundle.digest} ({members}); digests, fingerprint and golden outputs agree, and all"
            f" {len(files)} files are what they should be.\n"
        )
        if data is not None:
            sys.stdout.write(f"Learned from {data.candles} candles, data fingerprint {data.digest}.\n")
    return 0


def diff(before: str, after: str, places: Places, *, as_json: bool) -> int:
    """Print what differs between two bundles whose files are what their manifests say; nothing of them is loaded."""
    with found_bundle(before, places) as old, found_bundle(after, places) as new:
        digests = old.digest(), new.digest()
        manifests = read_manifest(old.path), read_manifest(new.path)
        for one, manifest in zip((old, new), manifests, strict=True):
            inspect_files(one.path, manifest)
        found = changes(flattened(manifests[0]), flattened(manifests[1]))
    if as_json:
        print_json({"before": digests[0], "after": digests[1], "changes": found})
        return 0
    sys.stdout.write(f"before  {digests[0]}\nafter   {digests[1]}\n")
    if not found:
        sys.stdout.write("Nothing differs.\n")
    for section in SECTIONS:
        rows = [change for change in found if change.section == section]
        if not rows:
            continue
        table = Table(section, "before", "after", title_justify="left")
        for change in rows:
            table.add_row(change.field, _short(change.before), _short(change.after))
        Console().print(table)
    return 0


def card(reference: str, places: Places, *, as_json: bool) -> int:
    """Print a bundle's model card, which is also its version's description in MLflow."""
    with found_bundle(reference, places) as found:
        digest, manifest = found.digest(), read_manifest(found.path)
        inspect_files(found.path, manifest)
    text = model_card(manifest, digest)
    if as_json:
        print_json({"digest": digest, "card": text})
    else:
        sys.stdout.write(f"{text}\n")
    return 0


def _short(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
