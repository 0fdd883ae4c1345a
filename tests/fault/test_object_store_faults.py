from __future__ import annotations

import json
import logging

import pytest
from moto.s3.models import s3_backends

from feature_store import object_storage
from feature_store.errors import BadInputError, LakeUnavailableError
from feature_store.lake_address import lake_folder, open_lake
from flows.feature_commands import labels
from inference.cli import run
from tests.feature_support import BTC, market
from tests.object_store import BUCKET, KEYS, object_store

BLOCK = market(400)


@pytest.fixture
def server():
    """An object store of the test's own, to be spoilt."""
    with object_store() as store:
        yield store


@pytest.fixture(autouse=True)
def _keys(monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def lake(server, tmp_path):
    """A lake with some candles."""
    lake = open_lake(server.address("lake"), tmp_path)
    lake.append(BTC, BLOCK[:300])
    return lake


def test_without_keys_it_is_told_which_to_set(server, tmp_path, monkeypatch):
    """Keys come from the environment; without them nothing is asked of the store."""
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(LakeUnavailableError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        open_lake(server.address("lake"), tmp_path)


def test_a_bucket_that_is_missing_is_named(server, tmp_path):
    """The message names bucket, endpoint and form of the setting."""
    with pytest.raises(
        LakeUnavailableError, match=r"no bucket 'other-bucket' at http://127.*make it, or correct QT_LAKE"
    ):
        open_lake(server.address("lake", bucket="other-bucket"), tmp_path)


def test_an_endpoint_that_is_down_is_named(tmp_path):
    """Nothing listens there: the address and what to do, within seconds."""
    with pytest.raises(LakeUnavailableError, match=r"127\.0\.0\.1:1 does not answer.*start it, or correct"):
        open_lake("s3://bucket/lake?endpoint_override=http://127.0.0.1:1", tmp_path)


def test_keys_that_are_refused_are_told_and_never_shown(server, lake, tmp_path, caplog):
    """Reads, writes and lists say that the keys are refused; no message and no log line holds a key."""
    caplog.set_level(logging.DEBUG)
    server.require_keys(after=0)
    try:
        messages = []
        for use in (
            lambda: lake.append(BTC, BLOCK),
            lambda: lake.read(BTC),
            lake.series,
            lambda: open_lake(server.address("lake"), tmp_path),
        ):
            with pytest.raises(LakeUnavailableError, match="refuses these keys for bucket") as raised:
                use()
            messages.append(str(raised.value))
    finally:
        server.require_keys(after=10**9)
    shown = " ".join(messages) + repr(lake.place) + caplog.text
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in shown
    assert lake.read(BTC).equals(BLOCK[:300])


@pytest.mark.parametrize(
    "setting",
    [
        "s3://",
        "s3:///lake",
        "s3://bucket/lake?colour=blue",
        "s3://bucket/lake#part",
        "s3://key:secret@bucket/lake",
        "s3://bucket/lake?secret_key=hidden",
        "s3://bucket/lake?endpoint_override=ftp://host",
        "s3://bucket/lake?endpoint_override=http://",
        "gs://bucket/lake",
    ],
)
def test_an_unusable_address_is_refused_by_its_setting(tmp_path, setting):
    """The message names QT_LAKE, and repeats no key."""
    with pytest.raises(BadInputError, match="QT_LAKE") as raised:
        open_lake(setting, tmp_path)
    assert "secret@" not in str(raised.value)
    assert "hidden" not in str(raised.value)


def test_a_folder_as_setting_is_the_lake(tmp_path):
    """A folder is taken as it is, a file is refused, and without a setting the lake lies in the home."""
    (tmp_path / "file").touch()
    assert lake_folder(str(tmp_path / "mine"), tmp_path) == tmp_path / "mine"
    assert lake_folder(None, tmp_path) == tmp_path / "lake"
    with pytest.raises(BadInputError, match="must be a folder, found the file"):
        lake_folder(str(tmp_path / "file"), tmp_path)


def test_a_store_that_ignores_conditions_is_refused(server, tmp_path):
    """Where two writers would overwrite each other without a word, none writes."""

    def forget_conditions(environ):
        for name in ("HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH"):
            environ.pop(name, None)

    server.before = forget_conditions
    lake = open_lake(server.address("lake"), tmp_path)
    with pytest.raises(LakeUnavailableError, match="ignores conditional writes"):
        lake.append(BTC, BLOCK)
    assert lake.series() == []


@pytest.mark.parametrize("stored", [0, 300])
def test_a_write_whose_answer_is_lost_counts_once(server, tmp_path, stored):
    """The store took the file and its answer was lost: what was appended is counted, and stored once."""
    lake, lost = open_lake(server.address("lake"), tmp_path), []
    lake.append(BTC, BLOCK[:stored])

    def lose(environ):
        if environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].endswith(".parquet") and not lost:
            lost.append(environ["PATH_INFO"])
            return "500 Internal Server Error"
        return None

    server.after = lose
    assert lake.append(BTC, BLOCK) == 400 - stored
    assert len(lost) == 1
    assert lake.read_rows(BTC).block.equals(BLOCK)


def test_a_writer_that_comes_between_is_merged_with(server, lake):
    """Another's file, put between our read and our write, is kept: we read again and write both."""
    key = str(lake.paths(BTC)[0].key.relative_to(BUCKET))
    other = open_lake(server.address("other"), lake.root)
    other.append(BTC, BLOCK[300:350])
    other.append(BTC, BLOCK[:300])
    (path,) = other.paths(BTC)
    content, came = other.place.storage.source(path).read(), []

    def come_between(environ):
        if environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].endswith("2023-11.parquet") and not came:
            came.append(key)
            s3_backends["123456789012"]["aws"].put_object(BUCKET, key, content)

    server.before = come_between
    assert lake.append(BTC, BLOCK[350:]) == 50
    assert came
    assert lake.read(BTC).equals(BLOCK)


def test_the_same_bytes_of_another_writer_are_not_taken_for_ones_own(server, lake):
    """Another stores the same candles as the same bytes, between our read and our write: they are not counted twice."""
    key = str(lake.paths(BTC)[0].key.relative_to(BUCKET))
    other = open_lake(server.address("other"), lake.root)
    other.append(BTC, BLOCK[:300])
    assert other.append(BTC, BLOCK) == 100
    content, came = other.place.storage.source(other.paths(BTC)[0]).read(), []

    def come_between(environ):
        if environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].endswith("2023-11.parquet") and not came:
            came.append(key)
            s3_backends["123456789012"]["aws"].put_object(BUCKET, key, content)

    server.before = come_between
    assert lake.append(BTC, BLOCK) == 0
    assert came
    assert lake.place.storage.source(lake.paths(BTC)[0]).read() == content


def test_writers_that_always_come_between_end_in_words(server, lake, monkeypatch):
    """Bounded tries, then a sentence; the lake holds what the others wrote."""
    monkeypatch.setattr(object_storage, "_TRIES", 3)
    server.before = lambda environ: "412 Precondition Failed" if environ["REQUEST_METHOD"] == "PUT" else None
    with pytest.raises(LakeUnavailableError, match="replaced by others 3 times in a row"):
        lake.append(BTC, BLOCK)
    server.before = lambda _: None
    assert lake.read(BTC).equals(BLOCK[:300])


def test_a_read_that_a_writer_overtakes_is_read_again(server, lake):
    """A file that grows between the question for its size and its content is read anew, and seen whole."""
    (path,) = lake.paths(BTC)
    key = str(path.key.relative_to(BUCKET))
    other = open_lake(server.address("other"), lake.root)
    other.append(BTC, BLOCK)
    longer, came = other.place.storage.source(other.paths(BTC)[0]).read(), []

    def overtake(environ):
        if environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].endswith("2023-11.parquet") and not came:
            came.append(key)
            s3_backends["123456789012"]["aws"].put_object(BUCKET, key, longer)

    server.before = overtake
    assert lake.read(BTC).equals(BLOCK)
    assert came


def test_a_store_that_fails_says_so_and_changes_nothing(server, lake):
    """A server that answers 503 is asked a bounded number of times, then told."""
    server.before = lambda environ: "503 Slow Down" if environ["PATH_INFO"].endswith(".parquet") else None
    with pytest.raises(LakeUnavailableError, match=r"failed.*try again"):
        lake.append(BTC, BLOCK)
    with pytest.raises(LakeUnavailableError, match=r"failed.*try again"):
        lake.read(BTC)
    server.before = lambda _: None
    assert lake.read(BTC).equals(BLOCK[:300])


def test_an_import_into_another_lake_reads_its_files_again(server, tmp_path, monkeypatch, capsys):
    """What a local lake holds, or another prefix, says nothing of this one: each lake gets the whole file, once."""
    (tmp_path / "one.csv").write_text(
        "exchange,symbol,timeframe,ts,open,high,low,close,volume\nbinance,BTCUSDT,5m,1767225600000,1,2,1,2,3\n"
    )
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("QT_LAKE", raising=False)
    for prefix in (None, "one", "other"):
        if prefix is not None:
            monkeypatch.setenv("QT_LAKE", server.address(prefix))
        for appended, known in ((1, 0), (0, 1)):
            assert run(["ingest", "--from", str(tmp_path / "one.csv"), "--json"]) == 0
            told = json.loads(capsys.readouterr().out)
            assert (told["appended"], told["known"]) == (appended, known)


def test_labels_are_made_of_the_lake_in_the_store(server, lake, tmp_path, monkeypatch, capsys):
    """`qtctl features labels` reads where QT_LAKE says, not the folder in which notes on that lake are kept."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    monkeypatch.setenv("QT_LAKE", server.address("lake"))
    for name in ("QT_VENUE", "QT_SYMBOLS", "QT_DAYS", "QT_TIMEFRAME"):
        monkeypatch.delenv(name, raising=False)

    assert labels(["--json"], exit_on_error=False, result_action="return_value") == 0
    assert json.loads(capsys.readouterr().out)[0]["trades"] > 0
