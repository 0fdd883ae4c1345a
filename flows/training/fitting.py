"""One member fitted by itself, as bytes: for another process to send, a job to keep, a later candidate to take."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import msgspec
import numpy as np
from msgspec.structs import replace

from feature_store.errors import BadInputError
from flows.training.bagging import fit_bag
from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Floats, FrameSet, Rows
from flows.training.members.base import Export, Progress, file_entry
from flows.training.members.catalogue import spec
from flows.training.pack import predict_rows
from flows.training.pipeline import rows_to_fit
from flows.training.splits import Splits, plan_splits
from inference.domain.errors import BundleError
from inference.models.ensemble import open_member
from inference.models.inspection.contents import NamedFile, check_finite, inspect_file
from inference.models.manifest import MemberEntry, TimeWindow

DEEP_MEMBERS = ("nhits", "patchtst")
"""Those that take minutes to fit, and may be kept from one candidate to the next."""


class MemberFile(msgspec.Struct, frozen=True, kw_only=True):
    """
    A fitted member without the library that fitted it.

    `trained` is what the training library itself answered at the places `sample` (into the frames laid end to end),
    where it was given what has the digest `asked`: the exporter is held against that wherever the member is packed.
    `fit` is the window it learned from.
    """

    name: str
    files: dict[str, bytes]
    export: Export
    importance: dict[str, float]
    sample: tuple[int, ...]
    asked: str
    trained: tuple[float, ...]
    fit: TimeWindow
    feature_fingerprint: str
    input_names: tuple[str, ...]
    symbols: tuple[str, ...]
    config: TrainingConfig


class StoredMember:
    """A member file in the form that packing asks for."""

    def __init__(self, file: MemberFile) -> None:
        self.name = file.name
        self.file = file

    @property
    def fit(self) -> TimeWindow:
        """The window it was fitted on."""
        return self.file.fit

    def predict(self, dataset: Dataset, rows: Rows) -> Floats:
        """Return what the training library answered to just these rows, else what the exported file answers."""
        # Frames of another day are as long as these were, so that the same places hold other candles.
        if tuple(rows.index.tolist()) == self.file.sample and _asked(dataset, rows) == self.file.asked:
            return np.array(self.file.trained, np.float64)
        export = self.file.export
        entry = MemberEntry(
            name=self.name, kind=export.kind, file=export.file, weight=1.0, scale=export.raw_scale,
            inputs=export.inputs, draws=export.draws,
        )  # fmt: skip
        contents = [self.file.files[file.name] for file in entry.files]
        member = open_member(entry, contents[0], dataset.input_names, contents)
        return predict_rows(member, dataset, rows)

    def export(self, folder: Path) -> Export:
        """Write the member's files, under the plain names that its export gives them and no others."""
        for entry in self.file.export.files:
            (folder / entry.name).write_bytes(self.file.files[entry.name])
        return self.file.export

    def importance(self) -> dict[str, float]:
        """Return each input's share of what the member learned."""
        return self.file.importance


def fit_member(name: str, frames: FrameSet, config: TrainingConfig, progress: Progress) -> MemberFile:
    """
    Fit one member on the frames' fit window; equal frames and configuration give an equal member.

    Raises:
        BadInputError: The frames are too few or too short, or there is no such member.
    """
    dataset, splits = _planned(frames, config)
    rows, sample = rows_to_fit(dataset, splits, config)
    member = spec(name)
    fitted = (
        fit_bag(name, member.fit, dataset, rows, config, progress)
        if config.ensemble_mode == "bagging" and member.reads_rows
        else member.fit(dataset, rows, config, progress)
    )
    with tempfile.TemporaryDirectory(prefix="member-") as folder:
        export = fitted.export(Path(folder))
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    return MemberFile(
        name=name,
        files=files,
        export=export,
        importance=fitted.importance(),
        sample=tuple(sample.index.tolist()),
        asked=_asked(dataset, sample),
        trained=tuple(fitted.predict(dataset, sample).tolist()),
        fit=splits.fit,
        feature_fingerprint=frames.feature_fingerprint,
        input_names=frames.input_names,
        symbols=frames.symbols,
        config=config,
    )


def _planned(frames: FrameSet, config: TrainingConfig) -> tuple[Dataset, Splits]:
    dataset = Dataset(frames, horizon=config.horizon, window=config.window)
    return dataset, plan_splits(dataset.start_ms, dataset.end_ms, config, timeframe_ms=frames.timeframe_ms)


def _asked(dataset: Dataset, rows: Rows) -> str:
    """Return the SHA-256 of all that a member is given at some rows: inputs and returns of their windows."""
    digest = hashlib.sha256()
    for part in dataset.batches(rows):
        digest.update(dataset.windows(part).tobytes())
        digest.update(dataset.returns(part).tobytes())
    return digest.hexdigest()


def encode_member(member: MemberFile) -> bytes:
    """Write a member file: its digest, then the content."""
    content = msgspec.msgpack.encode(member)
    return hashlib.sha256(content).digest() + content


def decode_member(content: bytes) -> MemberFile:
    """
    Read a member file, and take apart what it holds before a library is given any of it.

    Raises:
        BadInputError: It is not whole, or holds other files than it names, or one that is not what such files are.
    """
    digest, rest = content[:32], content[32:]
    if hashlib.sha256(rest).digest() != digest:
        raise BadInputError("A kept member is not what was written; it is fitted anew")
    try:
        member = msgspec.msgpack.decode(rest, type=MemberFile)
    except msgspec.MsgspecError as error:
        raise BadInputError(f"A kept member is of another version of this program: {error}") from error
    _inspect(member)
    return member


def _inspect(member: MemberFile) -> None:
    # The digest only tells that the bytes are whole: whoever can write the file can write that too.
    entries, export = {entry.name: entry for entry in member.export.files}, member.export
    if member.files.keys() != entries.keys():
        raise BadInputError(f"A kept member names the files {sorted(entries)} and holds others; it is fitted anew")
    try:
        check_finite((export, member.trained), "A kept member")
        for name, entry in entries.items():
            content = member.files[name]
            if file_entry(name, content) != entry:
                raise BadInputError(f"File {name} of a kept member is not what was exported; it is fitted anew")
            inspect_file(NamedFile(entry, export.kind, len(export.inputs)), content, f"File {name} of a kept member")
    except BundleError as error:
        raise BadInputError(f"{error}; it is fitted anew") from error
    if len(member.sample) != len(member.trained):
        raise BadInputError("A kept member has not one answer for each row of its sample; it is fitted anew")


def why_not_kept(member: MemberFile, frames: FrameSet, config: TrainingConfig) -> str | None:
    """
    Say why a member that was fitted for an earlier candidate cannot serve this one, None where it can.

    It can where it would be fitted in just the same way, on the same symbols and inputs, and where its fit window ends
    no later than this one's: what is held against it now must be as unseen by it as by a member fitted today.
    """
    if (member.feature_fingerprint, member.input_names) != (frames.feature_fingerprint, frames.input_names):
        return "it reads other inputs"
    if member.symbols != frames.symbols:
        return "it was fitted on other symbols"
    if _what_matters(member.config, member.name) != _what_matters(config, member.name):
        return "it was fitted in another way"
    if member.fit.end_ms > _planned(frames, config)[1].fit.end_ms:
        return "it has seen candles that would judge it now"
    return None


def _what_matters(config: TrainingConfig, name: str) -> TrainingConfig:
    """Return a configuration in which all is equal that changes nothing in a member."""
    plain = TrainingConfig(created_at="", code_version="")
    trees = {tree: getattr(plain, tree) for tree in ("xgboost", "lightgbm") if tree != name}
    return replace(config, created_at="", code_version="", threads=1, **trees)
