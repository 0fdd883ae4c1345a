"""Golden vectors and manifests that lie: archives with tricks, arrays with objects, statements that contradict."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from infra.prove.forging import MANIFEST, Forgery, edit_manifest, read_manifest, replace_file

GOLDEN = "golden.npz"


def forged_records() -> list[Forgery]:
    """Return crafted golden vectors, calibrations and manifests."""
    return [*_golden(), *_calibration(), *_manifest()]


def _golden() -> list[Forgery]:
    def arrays(name: str, change: Callable[[dict[str, Any]], None]) -> Forgery:
        def make(bundle: Path) -> None:
            with np.load(bundle / GOLDEN) as stored:
                found = dict(stored)
            change(found)
            replace_file(bundle, GOLDEN, _saved(found))

        return Forgery(f"golden: {name}", "golden", make)

    def archive(name: str, change: Callable[[bytes], bytes]) -> Forgery:
        def make(bundle: Path) -> None:
            replace_file(bundle, GOLDEN, change((bundle / GOLDEN).read_bytes()))

        return Forgery(f"golden: {name}", "golden", make)

    def first(name: str, value: float) -> Callable[[dict[str, Any]], None]:
        def change(found: dict[str, Any]) -> None:
            found[name] = found[name].copy()
            found[name].reshape(-1)[0] = value

        return change

    return [
        arrays("objects that want to be unpickled", lambda a: a.update(inputs=np.array([object()], dtype=object))),
        arrays("an output that is no number", first("expected_return", np.nan)),
        arrays("an infinite input", first("windows", np.inf)),
        arrays("another output", first("expected_return", 0.5)),
        arrays("fewer rows", lambda a: a.update({name: one[:-1] for name, one in a.items()})),
        arrays("no rows", lambda a: a.update({name: one[:0] for name, one in a.items()})),
        arrays("an array less", lambda a: a.pop("probability_up")),
        arrays("an array more", lambda a: a.update(surprise=np.zeros(3))),
        arrays("columns before rows", lambda a: a.update(inputs=np.asfortranarray(a["inputs"]))),
        arrays("complex numbers", lambda a: a.update(expected_return=a["expected_return"].astype(complex))),
        arrays("answers exchanged", lambda a: a.update(expected_return=a["probability_up"])),
        archive("a compressed archive", _deflated),
        archive("bytes before it", lambda content: b"#!/bin/sh\n" + content),
        archive("bytes after it", lambda content: content + b"\x00"),
        archive("an entry twice", lambda content: _rewritten(content, "inputs.npy")),
        archive("an entry with a path", lambda content: _rewritten(content, "../../evil.npy")),
        archive("another checksum", lambda content: content[:14] + b"\x00\x00\x00\x00" + content[18:]),
        archive("a directory of one entry fewer", _one_fewer),
        archive("half of it", lambda content: content[: len(content) // 2]),
        archive("no archive", lambda _: b"\x80\x04cos\nsystem\n."),
    ]


def _calibration() -> list[Forgery]:
    def of(name: str, change: Callable[[dict[str, Any]], None]) -> Forgery:
        return Forgery(
            f"calibration: {name}",
            "calibration",
            lambda bundle: edit_manifest(bundle, lambda m: change(m["calibration"])),
        )

    def bent(table: dict[str, Any]) -> None:
        table["probability_up"] = [0.9 * one + 0.05 for one in table["probability_up"]]

    return [
        of("a falling curve", lambda table: table["probability_up"].reverse()),
        of("certainty", lambda table: table["probability_up"].__setitem__(-1, 1.0)),
        of("points in no order", lambda table: table["expected_return"].reverse()),
        of("a point fewer", lambda table: table["expected_return"].pop()),
        of("another method", lambda table: table.update(method="oracle")),
        of("another curve", bent),
    ]


def _manifest() -> list[Forgery]:
    def of(name: str, change: Callable[[dict[str, Any]], None]) -> Forgery:
        return Forgery(f"manifest: {name}", "manifest", lambda bundle: edit_manifest(bundle, change))

    def text(name: str, change: Callable[[str], str]) -> Forgery:
        def make(bundle: Path) -> None:
            (bundle / MANIFEST).write_text(change(json.dumps(read_manifest(bundle))))

        return Forgery(f"manifest: {name}", "manifest", make)

    def shift(manifest: dict[str, Any]) -> None:
        first, second = manifest["members"][:2]
        first["weight"], second["weight"] = first["weight"] + 0.01, second["weight"] - 0.01

    def swap(manifest: dict[str, Any]) -> None:
        first, second = manifest["members"][:2]
        first["file"], second["file"] = second["file"], first["file"]

    def loose(manifest: dict[str, Any]) -> None:
        scales = manifest["golden"]["prediction_scale"]
        manifest["golden"]["prediction_scale"] = dict.fromkeys(scales, 1000000000.0)

    return [
        text("a key twice", lambda one: one.replace('"threshold":', '"threshold": 0.51, "threshold":', 1)),
        text(
            "a number that is none", lambda one: one.replace('"round_trip_cost": ', '"round_trip_cost": NaN, "x": ', 1)
        ),
        text("a number too large", lambda one: one.replace('"horizon": ', '"horizon": 1e999, "x": ', 1)),
        text("nested a hundred thousand deep", lambda _: "[" * 100_000),
        text("larger than any manifest", lambda one: one + " " * (5 * 2**20)),
        text("half of it", lambda one: one[: len(one) // 2]),
        of("an unknown field", lambda m: m.update(surprise=1)),
        of("a path for a name", lambda m: m["members"][0]["file"].update(name="../xgboost.ubj")),
        of("an absolute path", lambda m: m["members"][0]["file"].update(name="/etc/passwd")),
        of("one file for two members", lambda m: m["members"][1].update(file=m["members"][0]["file"])),
        of("a file that is too large", lambda m: m["members"][0]["file"].update(size=2**40)),
        of("members with each other's files", swap),
        of("other weights", shift),
        of("another scale", lambda m: m.update(scale=m["scale"] * 1.01)),
        of("other inputs of a member", lambda m: m["members"][0]["inputs"].pop()),
        of("inputs in another order", lambda m: m["members"][0]["inputs"].reverse()),
        of("a looser tolerance", lambda m: m["golden"].update(tolerance=1.0)),
        of("a spread that is untrue", loose),
        of("no spread at all", lambda m: m["golden"].update(prediction_scale={})),
        of("other features", lambda m: m.update(feature_fingerprint="0" * 64)),
        of("a threshold below a half", lambda m: m.update(threshold=0.4)),
        of("a bound that bounds nothing", lambda m: m.update(max_abs_expected_return=5.0)),
        of("other data", lambda m: m["data_fingerprint"].update(candles=1)),
        of("another training window", lambda m: m["training"]["fit"].update(start_ms=0)),
        of("regimes that fall", lambda m: m["regime"].update(volatility=[2.0, 1.0])),
        of("another schema", lambda m: m.update(schema_version=99)),
    ]


def _saved(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, **arrays)
    return buffer.getvalue()


def _entries(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as stored:
        return {name: stored.read(name) for name in stored.namelist()}


def _deflated(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        for name, body in _entries(content).items():
            out.writestr(name, body)
    return buffer.getvalue()


def _rewritten(content: bytes, added: str) -> bytes:
    """Return the archive with one entry more, under a name that may be there already."""
    buffer = io.BytesIO(content)
    entries = _entries(content)
    with zipfile.ZipFile(buffer, "a") as out:
        # The library only warns of a name that it holds already.
        out.NameToInfo.clear()
        out.writestr(added, entries["inputs.npy"])
    return buffer.getvalue()


def _one_fewer(content: bytes) -> bytes:
    end = bytearray(content[-22:])
    end[8] -= 1
    end[10] -= 1
    return content[:-22] + bytes(end)
