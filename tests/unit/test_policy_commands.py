"""`qtctl policy`: every change is a version with an author and a reason, and what cannot be meant changes nothing."""

from __future__ import annotations

import json

import pytest

from feature_store import terminal
from inference.domain.policy import Policy
from inference.policy.store import PolicyStore
from inference.policy.values import in_sections
from inference.policy_commands import policy


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return a home without a policy, in which the environment asks for nothing."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def said(capsys):
    """Return a function that runs a command and returns its status, its words and what it says went wrong."""

    def run(*arguments):
        status = terminal.run(policy, arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def store_of(home):
    return PolicyStore(home / "policy", now_ms=lambda: 0)


def test_a_change_is_a_version_that_is_told_and_taken_back(home, said):
    """Set, look, compare and go back; nothing between is lost."""
    assert said("set", "leverage=2", "constraints.max_positions=10", "--reason", "smaller", "--author", "anna")[0] == 0
    status, out, _ = said("set", "risk.max_leverage=1", "trading_windows=mon-fri 08:00-20:00", "--reason", "safer")
    assert status == 0
    assert "Policy version 2" in out
    assert "risk.leverage: 2 -> 1" in out
    assert "next candle" in out
    shown = json.loads(said("show", "--json")[1])
    assert (shown["version"], shown["rules"]["risk"]["leverage"], shown["reason"]) == (2, 1, "safer")
    assert "leverage = 1  (" in said("show", "--section", "risk")[1]
    assert "bias_mode" not in said("show", "--section", "risk")[1]
    changes = json.loads(said("diff", "--json")[1])["changes"]
    assert [one["rule"] for one in changes] == ["leverage", "trading_windows"]
    assert said("rollback", "1", "--reason", "as it was")[0] == 0
    assert store_of(home).version(3).policy == Policy(leverage=2, max_positions=10)
    listed = json.loads(said("history", "--json")[1])
    assert [(one["version"], one["source"], one["of"]) for one in listed] == [
        (3, "rollback", "1"), (2, "set", ""), (1, "set", ""),
    ]  # fmt: skip
    assert listed[2]["author"] == "anna"
    assert "rollback 1: as it was" in said("history", "--lines", "1")[1]


def test_a_profile_and_a_file_are_versions_too(home, said, tmp_path):
    """A profile, a TOML file and what `show` printed as JSON or TOML are taken whole, with changes on top."""
    assert said("set", "leverage=2", "--profile", "cautious", "--reason", "first week")[0] == 0
    newest = store_of(home).newest()
    assert newest is not None
    assert (newest.policy.leverage, newest.policy.max_positions, newest.of) == (2, 8, "cautious")
    (tmp_path / "p.json").write_text(said("show", "--json")[1])
    (tmp_path / "p.toml").write_text(said("show", "--toml")[1])
    assert said("set", "leverage=3", "--reason", "one more")[0] == 0
    assert said("set", "--file", str(tmp_path / "p.json"), "--reason", "back")[0] == 0
    for name in ("p.json", "p.toml"):
        assert json.loads(said("diff", str(tmp_path / name), "current", "--json")[1])["changes"] == []
        assert said("validate", str(tmp_path / name))[0] == 0


def test_a_dry_run_changes_nothing(home, said):
    """It shows what would differ, needs no reason, and leaves no file."""
    status, out, _ = said("set", "leverage=2", "--dry-run")
    assert (status, store_of(home).exists) == (0, False)
    assert "Nothing was changed" in out
    document = json.loads(said("set", "max_btc_beta=1.5", "--dry-run", "--json")[1])
    assert document["changes"] == [{"rule": "max_btc_beta", "section": "risk", "from": None, "to": "1.5"}]
    assert (document["version"], document["dry_run"]) == (None, True)
    said("set", "leverage=2", "--reason", "less")
    said("set", "leverage=1", "--reason", "least")
    assert said("rollback", "1", "--dry-run")[0] == 0
    assert len(store_of(home).history()) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(("set", "leverage=2"), "write --reason", id="no-reason"),
        pytest.param(("set", "--reason", "x"), "Say what to change", id="nothing"),
        pytest.param(("set", "leverage", "--reason", "x"), "written RULE=VALUE", id="no-value"),
        pytest.param(("set", "max_positon=3", "--reason", "x"), "did you mean max_positions", id="misspelt"),
        pytest.param(("set", "leverage=1e3", "--reason", "x"), "needs a whole number in [1, 30]", id="kind"),
        pytest.param(("set", "leverage=31", "--reason", "x"), "must lie in [1, 30], was 31", id="bounds"),
        pytest.param(("set", "max_notional=nan", "--reason", "x"), "needs a number", id="nan"),
        pytest.param(("set", "leverage=2", "risk.leverage=3", "--reason", "x"), "set twice", id="twice"),
        pytest.param(("set", "min_notional=3000", "--reason", "x"), "must not exceed max_notional", id="contradiction"),
        pytest.param(("set", "trading_windows=always", "--reason", "x"), "mon-fri 08:00-20:00", id="window"),
        pytest.param(("set", "leverage=3", "--reason", "x"), "", id="first-version-as-built-in"),
        pytest.param(("set", "--profile", "suorce", "--reason", "x"), "did you mean source", id="profile"),
        pytest.param(("set", "--profile", "source", "--file", "x.toml", "--reason", "x"), "not both", id="both"),
        pytest.param(("set", "--file", "absent.toml", "--reason", "x"), "cannot be read", id="no-file"),
        pytest.param(("rollback", "4", "--reason", "x"), "there are none yet", id="no-version"),
        pytest.param(("show", "--version", "4"), "there are none yet", id="show-no-version"),
        pytest.param(("show", "--version", "1", "--profile", "source"), "not both", id="show-both"),
        pytest.param(("show", "--section", "risks"), "risks", id="section"),
        pytest.param(("diff", "mars", "current"), "no version, profile or file 'mars'", id="diff-what"),
        pytest.param(("validate", "absent.toml"), "cannot be read", id="validate-absent"),
        pytest.param(("recover",), "there is none yet", id="nothing-to-recover"),
    ],
)
def test_what_cannot_be_meant_is_bad_usage_and_changes_nothing(home, said, arguments, words):
    """The message says what would do, to people and to machines, and no version is made."""
    status, _, err = said(*arguments)
    if not words:
        assert status == 0
        return
    told = json.loads(said(*arguments, "--json")[1])

    assert status == 2
    assert words in err
    assert told["exit_status"] == 2
    assert words in told["error"]
    assert not store_of(home).path.exists()


def test_who_has_not_seen_the_newest_version_is_refused(home, said):
    """A change that expects another version than the newest fails, and says how to look at it."""
    said("set", "leverage=2", "--reason", "one")
    said("set", "leverage=1", "--reason", "two")
    status, _, err = said("set", "leverage=3", "--reason", "three", "--expect", "1")

    assert status == 1
    assert "qtctl policy diff 1 2" in err
    assert said("rollback", "1", "--expect", "1", "--reason", "back")[0] == 1
    assert len(store_of(home).history()) == 2
    status, _, err = said("set", "leverage=1", "--reason", "again")
    assert (status, "Nothing changed" in err) == (2, True)


def test_a_damaged_store_is_named_and_made_again(home, said):
    """Nothing is shown of a store that cannot be trusted; its snapshot brings it back, the damaged file is kept."""
    said("set", "leverage=2", "--reason", "one")
    path = store_of(home).path
    path.write_bytes(b"SQLite format 3\0 and then nothing of it" * 100)

    for command in (("show",), ("history",), ("diff",), ("set", "leverage=1", "--reason", "x")):
        status, _, err = said(*command)
        assert status == 1
        assert "qtctl policy recover" in err
    status, out, _ = said("recover", "--json")
    assert status == 0
    assert json.loads(out)["version"] == 1
    assert len(list(path.parent.glob("policy.db.damaged-*"))) == 1
    assert json.loads(said("show", "--json")[1])["rules"] == in_sections(Policy(leverage=2))


def test_profiles_and_schema_are_told_to_machines(home, said):
    """Both are JSON that says every rule by the name it is set by."""
    listed = json.loads(said("profiles", "--json")[1])
    assert listed["default"]["changes"] == {}
    assert listed["source"]["changes"]["leverage"] == 30
    assert "source: figures of the source documents" in said("profiles")[1]
    schema = json.loads(said("schema")[1])
    assert schema["properties"]["risk"]["properties"]["leverage"] == {
        "description": "leverage set at the venue", "type": "integer", "minimum": 1, "maximum": 30, "default": 3,
    }  # fmt: skip


def test_before_the_first_version_the_built_in_rules_are_shown(home, said):
    """A home without a store is no error."""
    assert "No version yet" in said("show")[1]
    assert "no version yet" in said("history")[1]
    assert json.loads(said("show", "--profile", "source", "--json")[1])["profile"] == "source"
    assert "nothing differs" in said("diff")[1]
