"""Kept machine code is numba's own code, and nothing else is ever run in its place."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest

from feature_store.candle import Timeframe
from feature_store.errors import BadInputError
from feature_store.features import machine_code, native
from feature_store.features.engine import FeatureEngine, model_inputs
from feature_store.features.linking import Block, LinkError, link
from feature_store.features.machine_code import LoadedCode, MachineCodeError, read, write
from tests.feature_support import REPOSITORY, market, python, same
from tests.integration.test_features_process import interpreters

# Features, inputs and the modules that were needed for them.
COMPUTE = """
import json, sys, numpy as np
from feature_store.candle import Timeframe
from feature_store.features import native
from feature_store.features.engine import FeatureEngine, model_inputs
from tests.feature_support import market
engine = FeatureEngine(Timeframe.M5)
features = engine.advance(market(700))
np.savez(sys.argv[1], features=features, scored=model_inputs(features), **engine.state.arrays())
print(json.dumps(sorted(sys.modules)))
"""


@pytest.fixture
def kept(tmp_path) -> bytes:
    """Return a file of a small block of machine code."""
    write(tmp_path / "a.code", Block(b"\xc3" * 100, {"advance": 3}, {"log": 40}), made_from="f" * 64)
    return (tmp_path / "a.code").read_bytes()


def _arrays() -> dict[str, np.ndarray]:
    engine = FeatureEngine(Timeframe.M5)
    features = engine.advance(market(700))
    return {"features": features, "scored": model_inputs(features), **engine.state.arrays()}


def _agree(path, expected: dict[str, np.ndarray]) -> bool:
    with np.load(path) as found:
        return found.keys() == expected.keys() and all(same(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("interpreter", interpreters())
def test_features_need_no_compiler_where_code_is_kept(tmp_path, interpreter):
    """With kept machine code a process computes the same bits and imports neither numba nor llvmlite."""
    expected = _arrays()

    loaded = json.loads(python(COMPUTE, str(tmp_path / "out.npz"), interpreter=interpreter))

    assert not {"numba", "llvmlite", "llvmlite.binding"} & set(loaded)
    assert _agree(tmp_path / "out.npz", expected)


def test_damaged_code_is_compiled_again(tmp_path):
    """A file that was cut off is named, never run, and replaced by one compiled from the source."""
    tree = tmp_path / "tree"
    for package in ("feature_store", "infra", "tests"):
        names = shutil.ignore_patterns("__pycache__", "integration", "browser", "fault", "golden")
        shutil.copytree(REPOSITORY / package, tree / package, ignore=names)
    path = tree / "feature_store" / "features" / "__pycache__" / native.files()[0].name
    path.parent.mkdir()
    whole = next(file for file in native.files() if file.exists()).read_bytes()
    path.write_bytes(whole[:-1])

    done = subprocess.run(
        [sys.executable, "-c", COMPUTE, str(tmp_path / "out.npz")],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        timeout=250,
        check=True,
    )

    assert "is damaged" in done.stderr
    assert "compiling" in done.stderr
    assert "numba" not in json.loads(done.stdout)
    assert read(path, made_from=native.made_from()) == read(
        next(file for file in native.files() if file.exists()), made_from=native.made_from()
    )
    assert _agree(tmp_path / "out.npz", _arrays())


def test_a_file_reads_as_it_was_written(tmp_path, kept):
    """Code, entries and imports come back as they were."""
    block = read(tmp_path / "a.code", made_from="f" * 64)

    assert block == Block(b"\xc3" * 100, {"advance": 3}, {"log": 40})
    assert kept.count(b"\xc3" * 100) == 1


def test_every_cut_and_every_flipped_byte_is_refused(tmp_path, kept):
    """No file but the whole one is ever loaded."""
    path = tmp_path / "a.code"
    for at in range(len(kept)):
        for content in (kept[:at], kept[:at] + bytes([kept[at] ^ 1]) + kept[at + 1 :]):
            path.write_bytes(content)

            with pytest.raises(MachineCodeError):
                read(path, made_from="f" * 64)


def test_code_of_another_source_is_refused(tmp_path, kept):
    """Code made from another kernel, or by another numba, is not used."""
    with pytest.raises(MachineCodeError, match="was made from ffffffffffff, this program needs eeeeeeeeeeee"):
        read(tmp_path / "a.code", made_from="e" * 64)


@pytest.mark.parametrize("mode", [0o664, 0o646], ids=["by-group", "by-all"])
def test_code_that_others_may_write_is_refused(tmp_path, kept, mode):
    """A whole file with a right digest is not run where others could have written both."""
    path = tmp_path / "a.code"
    path.chmod(mode)

    with pytest.raises(MachineCodeError, match="nobody else may write; delete it"):
        read(path, made_from="f" * 64)


def test_code_of_another_user_is_refused(tmp_path, kept):
    """Root, this process' user and the owner of the program are trusted, and nobody else."""
    path = tmp_path / "a.code"
    ours = path.stat()
    stranger = max(os.geteuid(), Path(machine_code.__file__).stat().st_uid) + 1
    machine_code._check_owner(path, ours)

    with pytest.raises(MachineCodeError, match=f"belongs to user {stranger}"):
        machine_code._check_owner(path, os.stat_result((*ours[:4], stranger, *ours[5:])))


def test_what_set_up_kept_comes_before_the_folder_that_a_service_may_write_to(tmp_path, monkeypatch):
    """A file in QUANTUM_KERNEL_FOLDER is read only where none lies beside the source."""
    monkeypatch.setenv(native.FOLDER_VARIABLE, str(tmp_path))

    first, second = native.files()

    assert first.parent == Path(native.__file__).parent / "__pycache__"
    assert second == tmp_path / first.name


@pytest.mark.parametrize(
    "block",
    [
        Block(b"\xc3" * 100, {"advance": 100}, {}),
        Block(b"\xc3" * 100, {"advance": -1}, {}),
        Block(b"\xc3" * 100, {"advance": 0}, {"log": 93}),
        Block(b"\xc3" * 100, {"advance": 0}, {"system": 8}),
    ],
    ids=["entry-behind", "entry-before", "import-behind", "unknown-import"],
)
def test_impossible_places_are_refused(tmp_path, block):
    """A header cannot make us jump or write outside the block, or call what the kernel never calls."""
    write(tmp_path / "a.code", block, made_from="f" * 64)

    with pytest.raises(MachineCodeError, match="cannot have"):
        read(tmp_path / "a.code", made_from="f" * 64)


@pytest.mark.parametrize(
    ("flags", "levels"),
    [
        ("fpu sse2", ["1"]),
        ("abm avx avx2 bmi1 bmi2 f16c fma movbe xsave", ["3", "1"]),
        ("abm avx avx2 bmi1 bmi2 f16c fma movbe xsave avx512f avx512bw avx512cd avx512dq avx512vl", ["4", "3", "1"]),
        ("avx512f avx512bw avx512cd avx512dq avx512vl", ["1"]),
    ],
    ids=["any", "avx2", "avx-512", "avx-512-alone"],
)
def test_a_processor_runs_only_what_it_can(tmp_path, flags, levels):
    """Code of a level is chosen where every instruction of it is there; the plainest always runs."""
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")

    assert machine_code.processor_levels(tmp_path / "cpuinfo") == levels
    assert machine_code.processor_levels(tmp_path / "absent") == ["1"]


def test_loaded_code_cannot_be_written(tmp_path):
    """Memory that runs is not memory that is written."""
    block = read(next(file for file in native.files() if file.exists()), made_from=native.made_from())
    loaded = LoadedCode(block)
    start = loaded.addresses["advance@1"]
    with Path("/proc/self/maps").open() as maps:
        ranges = [(line.split()[0].split("-"), line.split()[1]) for line in maps]
    rights = next(kind for (low, high), kind in ranges if int(low, 16) <= start < int(high, 16))

    assert rights == "r-xp"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda a: a | {"bars": a["bars"].astype(np.float32)}, "float32"),
        (lambda a: a | {"bars": np.asfortranarray(a["bars"])}, "contiguous"),
        (lambda a: a | {"bars": a["bars"][:, :4]}, "shape"),
        (lambda a: a | {"out": a["out"][:1]}, "shape"),
        (lambda a: a | {"tail": a["tail"][:, :63]}, "shape"),
        (lambda a: a | {"state": np.zeros(23)}, "shape"),
    ],
    ids=["type", "order", "columns", "room", "tail", "state"],
)
def test_arrays_that_do_not_fit_never_reach_the_code(change, what):
    """Machine code has no bounds of its own, so the door in front of it does."""
    fitting = {
        "bars": np.ones((2, 5)),
        "tail": np.ones((5, 64)),
        "state": np.zeros(24),
        "warm_up": np.zeros(49, np.int64),
        "out": np.empty((2, 49)),
    }

    with pytest.raises(BadInputError, match=what):
        native.advance(100, **change(fitting))


def _object_file(source: str) -> bytes:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(source)
    return llvm.Target.from_default_triple().create_target_machine(reloc="pic", codemodel="small").emit_object(module)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("declare void @exit(i32)\ndefine void @f() {\n call void @exit(i32 1)\n ret void\n}", "exit"),
        ("@x = global i64 7\ndefine void @f() {\n store i64 1, ptr @x\n ret void\n}", "write"),
        ("@x = external global i64\ndefine void @f() {\n store i64 1, ptr @x\n ret void\n}", "x"),
        ("define void @g() {\n ret void\n}", "no function f"),
    ],
    ids=["calls-the-system", "writes-a-global", "needs-a-global", "lacks-the-function"],
)
def test_code_that_needs_more_is_not_linked(source, reason):
    """The linker knows calls of a few mathematical functions and constants, and refuses everything else."""
    with pytest.raises(LinkError, match=reason):
        link([("f", "f", _object_file(source))], ("log", "memset"))


@pytest.mark.parametrize(
    "content", [b"", b"\x7fELF", b"\x00" * 200, b"\x7fELF\x02\x01\x01" + struct.pack("<9xHH44x", 3, 62)]
)
def test_only_object_files_are_linked(content):
    """A program, a library or noise is refused."""
    with pytest.raises(LinkError):
        link([("f", "f", content)], ())
