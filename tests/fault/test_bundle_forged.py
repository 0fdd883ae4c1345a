"""Bundles forged by somebody who knows the format, digests mended: refused before a library is given a byte."""

from __future__ import annotations

import contextlib
import json
import shutil

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.domain.errors import BundleError
from inference.models import manifest as manifests
from inference.models.bundle import load_bundle, read_manifest
from inference.models.inspection.contents import named_files
from inference.models.inspection.json_text import strict_json
from inference.models.inspection.lightgbm_text import inspect_lightgbm
from inference.models.inspection.npz_archive import read_arrays
from inference.models.inspection.onnx_graph import inspect_onnx
from inference.models.inspection.refusal import Fault, InspectionError
from inference.models.inspection.ubjson import parse
from inference.models.inspection.xgboost_model import inspect_xgboost
from infra.prove.bundle_tamper import GOLDEN_ONLY, Target, crafted, sentinels
from infra.prove.forging import replace_file, ubjson
from tests.training_support import FINGERPRINT, trained_candidate

FORGERIES = {one.name: one for one in crafted()}
INSPECTORS = {
    "xgboost.ubj": lambda content: inspect_xgboost(content, 9, "x"),
    "lightgbm.txt": lambda content: inspect_lightgbm(content, 9, "x"),
    "nhits.onnx": lambda content: inspect_onnx(content, "x"),
    "golden.npz": lambda content: read_arrays(content, {"inputs"}, "x"),
    "manifest.json": lambda content: strict_json(content, "x"),
}


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


@pytest.fixture
def target(tmp_path):
    return Target(trained_candidate().path, FINGERPRINT, tmp_path)


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_bundle_reaches_no_library(target, name):
    """Whatever was crafted is refused; what has another structure than training writes is refused unopened."""
    FORGERIES[name].make(target.copy())

    with sentinels() as noted:
        found = target.judge(noted, digest_known=False)

    assert found.by == ("golden" if name in GOLDEN_ONLY else found.by)
    assert found.by in ("inspection", "manifest", "golden")
    assert found.calls == () or name in GOLDEN_ONLY


def test_the_sentinels_see_what_a_sound_bundle_opens(target):
    """Four members make four calls: an empty list elsewhere means that nothing was called."""
    target.copy()

    with sentinels() as noted:
        found = target.judge(noted, digest_known=True)

    assert found.by is None
    assert len(found.calls) == 4


def test_the_registrys_digest_refuses_a_bundle_forged_whole(target):
    """Even where every check of the bundle itself would pass, another digest than the registry's is refused first."""
    copy = target.copy()
    manifest = json.loads((copy / "manifest.json").read_bytes())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"threshold": 0.51}))

    with sentinels() as noted:
        assert target.judge(noted, digest_known=True).by == "digest"
        assert noted.take() == []


def test_each_refusal_of_a_structure_has_its_name(target):
    """Alerts can tell what was tried: a path, an operator, a number, a tree."""
    expected = {
        "lightgbm: a file to read": Fault.EXTERNAL_DATA,
        "onnx: weights in another file": Fault.EXTERNAL_DATA,
        "onnx: an operator of somebody's library": Fault.FORBIDDEN_OPERATOR,
        "onnx: weights that are no numbers": Fault.NOT_FINITE,
        "xgboost: a child that is its own ancestor": Fault.BAD_TREE,
        "xgboost: a key twice": Fault.DUPLICATE_KEY,
        "golden: a compressed archive": Fault.BAD_ARCHIVE,
        "golden: objects that want to be unpickled": Fault.BAD_ARRAY,
        "manifest: a key twice": Fault.DUPLICATE_KEY,
        "manifest: a looser tolerance": Fault.LOOSE_TOLERANCE,
    }
    found = {}
    for name in expected:
        FORGERIES[name].make(target.copy())
        with pytest.raises(InspectionError, match="nothing of it was loaded") as refused:
            load_bundle(target._copy, expected_fingerprint=FINGERPRINT)
        found[name] = refused.value.fault

    assert found == expected


def test_a_booster_written_again_by_our_own_writer_still_loads(target):
    """What forgeries are made with changes nothing by itself, so that each is refused for what it changed."""
    copy = target.copy()
    replace_file(copy, "xgboost.ubj", ubjson(parse((copy / "xgboost.ubj").read_bytes(), "x")))

    assert load_bundle(copy, expected_fingerprint=FINGERPRINT).horizon == 12


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(INSPECTORS)), content=st.binary(max_size=400))
def test_garbage_is_refused_and_never_crashes_a_check(name, content):
    """Any bytes at all are refused with the error of refusals, whichever check reads them."""
    if name == "manifest.json" and _is_json(content):
        return
    with pytest.raises(InspectionError):
        INSPECTORS[name](content)


@settings(max_examples=150)
@given(name=st.sampled_from(sorted(INSPECTORS)), data=st.data())
def test_a_spoilt_file_passes_or_is_refused_and_nothing_else_happens(name, data):
    """Bytes changed, cut out or put in anywhere: the check answers yes or says no; it never fails otherwise."""
    content = bytearray((trained_candidate().path / name).read_bytes())
    start = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(start, min(start + 40, len(content))))
    content[start:end] = data.draw(st.binary(max_size=40))
    said = "sound"
    try:
        INSPECTORS[name](bytes(content))
    except InspectionError as error:
        said = error.fault.value
    assert said in {"sound", *(one.value for one in Fault)}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=200)
@given(data=st.data())
def test_a_manifest_with_any_value_anywhere_is_read_or_refused(data):
    """The decoder takes what fits the schema and its rules, and answers all else with one kind of error."""
    manifest = json.loads((trained_candidate().path / "manifest.json").read_bytes())
    place = manifest
    key = data.draw(st.sampled_from(sorted(place)))
    while isinstance(place[key], dict) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place)))
    place[key] = data.draw(_JSON)
    read = None
    with contextlib.suppress(msgspec.DecodeError):
        read = manifests.decode(json.dumps(manifest).encode())
    assert read is None or manifests.decode(manifests.encode(read)) == read


@settings(max_examples=100)
@given(content=st.binary(max_size=300) | _JSON.map(lambda one: json.dumps(one).encode()))
def test_no_document_but_a_manifest_is_read_as_one(tmp_path_factory, content):
    """Bytes and JSON of any kind under the manifest's name are refused with the error of bundles."""
    folder = tmp_path_factory.getbasetemp() / "any-manifest"
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_bytes(content)

    with pytest.raises(BundleError):
        read_manifest(folder)


def test_a_name_cannot_stand_for_two_contents():
    """Every file of the manifest is inspected once, wherever it is named; two digests under one name are refused."""
    manifest = read_manifest(trained_candidate().path)
    first, second, *rest = manifest.members
    double = msgspec.structs.replace(second, file=msgspec.structs.replace(second.file, name=first.file.name))

    assert {one.file.name for one in named_files(manifest)} == {
        path.name for path in trained_candidate().path.iterdir()
    } - {"manifest.json"}
    with pytest.raises(ValueError, match="one owner"):
        msgspec.structs.replace(manifest, members=(first, double, *rest))


def test_a_bundle_from_before_data_and_regimes_were_recorded_still_loads(target):
    """The fields are optional: an older bundle loads, its data unknown and every regime too."""
    copy = target.copy()
    manifest = json.loads((copy / "manifest.json").read_bytes())
    del manifest["data_fingerprint"], manifest["regime"]
    (copy / "manifest.json").write_text(json.dumps(manifest))

    bundle = load_bundle(copy, expected_fingerprint=FINGERPRINT)

    assert bundle.manifest.data_fingerprint is None
    assert bundle.regimes(np.zeros((2, 64), np.float32), ["A", "B"]) == ("unknown", "unknown")


def test_a_linked_folder_of_the_bundle_itself_is_read(tmp_path):
    """Homes may be links; only what lies inside a bundle may not."""
    link = tmp_path / "bundle"
    link.symlink_to(shutil.copytree(trained_candidate().path, tmp_path / "real"))

    assert load_bundle(link, expected_fingerprint=FINGERPRINT).horizon == 12


def test_an_oversized_file_is_refused_by_its_size_alone(target):
    """What is larger than the manifest says is not read into memory: 4 GiB of nothing cost no time."""
    copy = target.copy()
    with (copy / "xgboost.ubj").open("ab") as file:
        file.truncate(2**32)

    with pytest.raises(InspectionError, match="at most") as refused:
        load_bundle(copy, expected_fingerprint=FINGERPRINT)
    assert refused.value.fault is Fault.OVERSIZE
