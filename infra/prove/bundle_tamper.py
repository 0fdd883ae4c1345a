"""A bundle that was tampered with: refused, by which check, and what had been given to a library by then."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnxruntime
import xgboost

from inference.domain.errors import BundleError
from inference.models.bundle import bundle_digest, load_bundle
from inference.models.inspection.refusal import InspectionError
from inference.models.inspection.ubjson import parse
from infra.prove.forged_graphs import forged_graphs
from infra.prove.forged_records import forged_records
from infra.prove.forged_trees import XGBOOST, forged_boosters
from infra.prove.forging import Forgery, replace_file, ubjson
from infra.prove.proof import Proof, Size
from infra.prove.small_candidate import config_of, market, train

# Flips with the manifest as it was, and flips whose digests were mended.
FLIPS = {Size.FULL: (1500, 400), Size.CI: (120, 30)}
_SEED = 20
# Structure that no library may see, against numbers that only the golden vectors can tell from those of training.
GOLDEN_ONLY = frozenset({
    "calibration: another curve", "manifest: other weights",
    "manifest: another scale", "manifest: inputs in another order",
})  # fmt: skip


@dataclass(slots=True)
class Sentinels:
    """Which libraries were given bytes since the last look."""

    calls: list[str] = field(default_factory=list)

    def take(self) -> list[str]:
        """Return the calls and forget them."""
        found, self.calls = self.calls, []
        return found


@contextlib.contextmanager
def sentinels() -> Iterator[Sentinels]:
    """Stand before every function that would open a model or an archive, and note who passes."""
    noted = Sentinels()
    doors: list[tuple[Any, str]] = [
        (xgboost.Booster, "load_model"), (lightgbm.Booster, "__init__"), (onnxruntime.InferenceSession, "__init__"),
        (np, "load"), (pickle, "loads"), (pickle, "load"),
    ]  # fmt: skip
    originals = [getattr(owner, name) for owner, name in doors]

    def watching(label: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            noted.calls.append(label)
            return original(*arguments, **options)

        return call

    for (owner, name), original in zip(doors, originals, strict=True):
        setattr(owner, name, watching(f"{getattr(owner, '__name__', owner)}.{name}", original))
    try:
        yield noted
    finally:
        for (owner, name), original in zip(doors, originals, strict=True):
            setattr(owner, name, original)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What became of one tampered bundle: refused by which check, None where it was not, and the calls before that."""

    by: str | None
    calls: tuple[str, ...]


class Target:
    """A sound bundle, and copies of it to spoil."""

    def __init__(self, sound: Path, fingerprint: str, folder: Path) -> None:
        self.sound = sound
        self.digest = bundle_digest(sound)
        self._fingerprint = fingerprint
        self._copy = folder / "copy"

    def copy(self) -> Path:
        """Return a fresh copy; there is one at a time."""
        shutil.rmtree(self._copy, ignore_errors=True)
        return shutil.copytree(self.sound, self._copy)

    def judge(self, noted: Sentinels, *, digest_known: bool) -> Refusal:
        """Load the copy as the worker does, with or without the digest that the registry holds."""
        noted.take()
        by = None
        try:
            load_bundle(
                self._copy,
                expected_fingerprint=self._fingerprint,
                expected_digest=self.digest if digest_known else None,
            )
        except InspectionError:
            by = "inspection"
        except BundleError as error:
            said = str(error)
            by = next((name for words, name in _CHECKS if words in said), "manifest")
        return Refusal(by, tuple(noted.take()))


_CHECKS = (
    ("has digest", "digest"), ("has SHA-256", "digest"), ("golden outputs", "golden"), ("no such model", "library"),
    ("cannot score", "library"),
)  # fmt: skip


def crafted() -> list[Forgery]:
    """Return every change that was crafted by somebody who knows the format, digests mended."""
    return [*forged_boosters(), *forged_graphs(), *forged_records()]


def prove(size: Size) -> Proof:
    """Flip, cut, extend, exchange and forge; CI has time for fewer flips, and for all that was crafted."""
    flips, mended_flips = FLIPS[size]
    config = config_of("tiny", _SEED)
    frames = market(4, 8, _SEED)
    rng = np.random.default_rng(_SEED)
    with tempfile.TemporaryDirectory() as folder, sentinels() as noted:
        sound = Path(folder) / "sound"
        train(frames, config, sound)
        target = Target(sound, frames.feature_fingerprint, Path(folder))
        missed = _controls(target, noted)
        plain = [target.judge(noted, digest_known=True) for _ in _flipped(target, rng, flips, mend=False)]
        handled = {name: target.judge(noted, digest_known=True) for name in _mishandled(target)}
        known, unknown = {}, {}
        for one in crafted():
            one.make(target.copy())
            known[one.name] = target.judge(noted, digest_known=True)
            unknown[one.name] = target.judge(noted, digest_known=False)
        mended = [target.judge(noted, digest_known=False) for _ in _flipped(target, rng, mended_flips, mend=True)]
        names = sorted(path.name for path in sound.iterdir())

    before = plain + list(handled.values()) + list(known.values())
    missed += [
        f"not refused: {name}" for found in (handled, known, unknown) for name, one in found.items() if not one.by
    ]
    missed += [f"a flip was not refused: {one}" for one in plain if one.by is None]
    missed += [f"a library was given bytes: {one}" for one in before if one.calls]
    missed += [
        f"a library was given bytes before {name} was refused by {one.by}: {one.calls[:2]}"
        for name, one in unknown.items()
        if one.calls and not (name in GOLDEN_ONLY and one.by == "golden")
    ]
    missed += [f"a library had to refuse {name}" for name, one in unknown.items() if one.by == "library"]
    total = len(before) + len(unknown)
    by = Counter(one.by or "nobody" for one in mended)
    details = [
        f"a bundle of {', '.join(names)}",
        f"{len(plain)} bits flipped in any file, the registry's digest known: {_by(plain)}",
        f"{len(handled)} files cut, extended, emptied, exchanged, linked or missing: {_by(list(handled.values()))}",
        f"{len(known)} crafted changes, digests mended, the registry's digest known: {_by(list(known.values()))}",
        f"the same without any digest from outside: {_by(list(unknown.values()))}",
        f"the {len(GOLDEN_ONLY)} that change numbers and no structure are loaded as data; golden vectors refuse them",
        f"{len(mended)} random flips, digests mended, none from outside: {dict(by)}",
        "nobody: no golden row reads that number; a digest kept elsewhere tells, the registry's tag or the approval's",
    ]
    return Proof(
        name="bundle-tamper",
        figure=f"{total - len(missed)} of {total} tampered bundles refused before a library got a byte it may not see",
        bar=f"{total} of {total}",
        holds=not missed,
        details=(*details, *missed[:20]),
    )


def _by(found: list[Refusal]) -> str:
    return ", ".join(f"{count} by {name}" for name, count in Counter(one.by for one in found).most_common())


def _controls(target: Target, noted: Sentinels) -> list[str]:
    """A sound copy must load, also one whose booster our own writer wrote again: else all is refused for nothing."""
    target.copy()
    failed = []
    sound = target.judge(noted, digest_known=True)
    if sound.by is not None or not {"Booster.load_model", "Booster.__init__", "InferenceSession.__init__"} <= set(
        sound.calls
    ):
        failed.append(f"a sound bundle: {sound}")
    copy = target.copy()
    replace_file(copy, XGBOOST, ubjson(parse((copy / XGBOOST).read_bytes(), XGBOOST)))
    again = target.judge(noted, digest_known=False)
    return failed if again.by is None else [*failed, f"a booster written again: {again}"]


def _flipped(target: Target, rng: np.random.Generator, count: int, *, mend: bool) -> Iterator[None]:
    """Flip one bit of one file after another, every file as often; each flip in a sound copy."""
    names = sorted(path.name for path in target.sound.iterdir() if not (mend and path.name == "manifest.json"))
    copy = target.copy()
    manifest = (target.sound / "manifest.json").read_bytes()
    for number in range(count):
        name = names[number % len(names)]
        sound = (target.sound / name).read_bytes()
        content = bytearray(sound)
        content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        if mend:
            replace_file(copy, name, bytes(content))
        else:
            (copy / name).write_bytes(content)
        yield
        (copy / name).write_bytes(sound)
        (copy / "manifest.json").write_bytes(manifest)


def _mishandled(target: Target) -> Iterator[str]:
    """Yield what was done to a copy, file by file."""
    names = sorted(path.name for path in target.sound.iterdir())
    for place, name in enumerate(names):
        other = (target.sound / names[place - 1]).read_bytes()
        content = (target.sound / name).read_bytes()
        changes: dict[str, Callable[[Path], object]] = {
            "cut": lambda path, content=content: path.write_bytes(content[:-1]),
            "halved": lambda path, content=content: path.write_bytes(content[: len(content) // 2]),
            "emptied": lambda path: path.write_bytes(b""),
            "extended": lambda path, content=content: path.write_bytes(content + b"\n{}"),
            "doubled": lambda path, content=content: path.write_bytes(content * 2),
            "exchanged": lambda path, other=other: path.write_bytes(other),
            "zeros": lambda path, content=content: path.write_bytes(bytes(len(content))),
            "missing": Path.unlink,
            "a link": _linked,
            "a folder": lambda path: (path.unlink(), path.mkdir()),
            "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
        }
        for what, change in changes.items():
            change(target.copy() / name)
            yield f"{name}: {what}"
    for extra in ("evil.pkl", ".hidden", "model.onnx.data"):
        (target.copy() / extra).write_bytes(b"x")
        yield f"beside it: {extra}"


def _linked(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)
