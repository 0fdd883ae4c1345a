"""`qtctl policy`: look at the trading rules, change them, and go back."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from feature_store.clock import utc_now_ms
from feature_store.terminal import help_end
from inference.domain.errors import PolicyError
from inference.domain.policy import Policy
from inference.domain.policy_rules import Section
from inference.policy.exit_profiles import FILE_NAME, kept_exit_profiles, usable_exit_profile
from inference.policy.policy_file import policy_text, read_policy
from inference.policy.profiles import DEFAULT, PROFILES, profile
from inference.policy.store import PolicyStore
from inference.policy.values import rule_named, value_of_text
from inference.policy.versions import Source
from inference.settings import Settings
from inference.telemetry import policy_printed as printed

if TYPE_CHECKING:
    from inference.policy.versions import PolicyVersion

_CURRENT = "current"
_STORE_FAULT = "the policy store cannot be read or written; the message says what is wrong, and what to do"
_REFUSED = "bad usage: a rule, a value, a version or a profile that there is not; nothing was changed"
_TAKEN = "A worker that runs takes it at the next candle."

policy = App(
    name="policy",
    help="""Look at the trading rules, change them, and go back.

Every change is a version with a number, an author and a reason, in policy/policy.db of the home folder; a snapshot of
all versions lies beside it. A worker that runs takes a new version at the next candle and stamps it on each decision.
The first version is made of the worker's --policy file and settings; after that the store is in force.""",
    help_format="plaintext",
    help_epilogue=help_end(
        "qtctl policy show",
        "qtctl policy set leverage=2 constraints.max_positions=10 --reason 'smaller for the weekend'",
        "qtctl policy rollback 3 --reason 'as it was'",
        statuses={0: "done", 1: _STORE_FAULT, 2: _REFUSED},
        as_json=True,
    ),
)

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON for machines.")]
Home = Annotated[
    Path | None,
    Parameter(name="--home", help="Folder of everything written; by default QUANTUM_HOME, else ./var."),
]
Author = Annotated[str | None, Parameter(help="Who makes the change; by default the name of the user.")]
Reason = Annotated[str, Parameter(help="Why, in a line; it is kept with the version. By default there is none.")]
Expect = Annotated[
    int | None,
    Parameter(help="Number of the version that was looked at; by default the newest. Another one is refused."),
]
DryRun = Annotated[bool, Parameter(negative="", help="Only show what would differ.")]
Profiled = Annotated[str | None, Parameter(help="A profile's rules instead; by default those of the store.")]
Shown = Annotated[Section | None, Parameter(help="Only the rules of one section; by default all.")]
Numbered = Annotated[int | None, Parameter(help="Number of a version; by default the newest.")]
Lines = Annotated[int, Parameter(help="How many versions.")]
Toml = Annotated[bool, Parameter(negative="", help="Print it as a TOML file.")]
Compared = Annotated[str, Parameter(help="A version's number, current, previous, a profile, or a TOML or JSON file.")]


@policy.command(
    help_epilogue=help_end(
        "qtctl policy show --section risk",
        "qtctl policy show --profile source --json | jq .rules.risk.leverage",
        "qtctl policy show --version 3 --toml",
        statuses={0: "shown", 1: _STORE_FAULT, 2: _REFUSED},
        as_json=True,
    )
)
def show(
    *,
    version: Numbered = None,
    profile: Profiled = None,
    section: Shown = None,
    toml: Toml = False,
    home: Home = None,
    json: Json = False,
) -> int:
    """Show the rules in force, those of another version, or a profile's; what is not at its default is marked."""
    if version is not None and profile is not None:
        raise PolicyError("Name a version or a profile, not both")
    found = None if profile is not None else _version(_store(home), version)
    rules = found.policy if found is not None else _profile_policy(profile or DEFAULT)
    words = f"Profile {profile}" if profile is not None else "No version yet: these are the built-in rules"
    title = printed.version_title(found) if found is not None else words
    if toml:
        sys.stdout.write(policy_text(rules, title))
        return 0
    bare = {"version": None, "fingerprint": rules.fingerprint, "profile": profile or DEFAULT}
    about = printed.version_document(found) if found is not None else bare
    printed.print_policy(rules, about, section=section, title=title, as_json=json)
    return 0


@policy.command(
    name="set",
    help_epilogue=help_end(
        "qtctl policy set leverage=2 --reason 'smaller for the weekend'",
        "qtctl policy set trading_windows='mon-fri 08:00-20:00,sat 10:00-12:00' --reason 'office hours' --dry-run",
        "qtctl policy set --profile cautious --reason 'first week with real money' --json",
        "qtctl policy set --file policy.toml --reason 'as tuned'",
        statuses={
            0: "a version was made, or with --dry-run shown",
            1: f"{_STORE_FAULT}; or changed meanwhile",
            2: _REFUSED,
        },
        as_json=True,
    ),
)
def set_rules(
    changes: Annotated[
        Sequence[str],
        Parameter(help="RULE=VALUE, several; none for no limit, lists joined by commas. By default none.", negative=""),
    ] = (),
    /,
    *,
    reason: Reason = "",
    author: Author = None,
    file: Annotated[
        Path | None, Parameter(help="TOML or JSON file whose rules replace all; by default the newest version's stay.")
    ] = None,
    profile: Annotated[
        str | None, Parameter(help="Profile whose rules replace all; by default the newest version's stay.")
    ] = None,
    expect: Expect = None,
    dry_run: DryRun = False,
    home: Home = None,
    json: Json = False,
) -> int:
    """Make a version with other values of some rules, of a file or of a profile."""
    store = _store(home)
    newest = store.newest()
    before = newest.policy if newest is not None else Policy()
    after, source, of = _asked(before, changes, file, profile)
    usable_exit_profile(after, kept_exit_profiles(store.path.parent))
    at = newest.number if newest is not None else 0
    if dry_run:
        return _shown(before, after, at=at, as_json=json)
    made = store.append(
        after, expected=at if expect is None else expect, author=author or _user(), reason=reason, source=source, of=of
    )
    return _told(before, made, as_json=json)


@policy.command(
    help_epilogue=help_end(
        "qtctl policy rollback 3 --reason 'as it was before the weekend'",
        statuses={0: "a version was made", 1: f"{_STORE_FAULT}; or changed meanwhile", 2: _REFUSED},
        as_json=True,
    )
)
def rollback(
    version: Annotated[int, Parameter(help="Number of the version to go back to.")],
    /,
    *,
    reason: Reason = "",
    author: Author = None,
    expect: Expect = None,
    dry_run: DryRun = False,
    home: Home = None,
    json: Json = False,
) -> int:
    """Make a version that equals an earlier one; nothing between is lost."""
    store = _store(home)
    before, old = _version(store, None), store.version(version)
    assert before is not None
    usable_exit_profile(old.policy, kept_exit_profiles(store.path.parent))
    if dry_run:
        return _shown(before.policy, old.policy, at=before.number, as_json=json)
    made = store.rollback(
        version, expected=before.number if expect is None else expect, author=author or _user(), reason=reason
    )
    return _told(before.policy, made, as_json=json)


@policy.command(
    help_epilogue=help_end(
        "qtctl policy diff",
        "qtctl policy diff 2 current",
        "qtctl policy diff default source --json | jq '.changes[].rule'",
        statuses={0: "compared, whatever differs", 1: _STORE_FAULT, 2: _REFUSED},
        as_json=True,
    )
)
def diff(before: Compared = "previous", after: Compared = _CURRENT, /, *, home: Home = None, json: Json = False) -> int:
    """Show what differs between two versions, profiles or files; by default what the newest version changed."""
    store = _store(home)
    earlier, later = _compared(store, before), _compared(store, after)
    about = {"before": before, "after": after}
    printed.print_changes(earlier, later, about=about, title=f"From {before} to {after}:", as_json=json)
    return 0


@policy.command(
    help_epilogue=help_end(
        "qtctl policy history --lines 50",
        "qtctl policy history --json | jq '.[0].reason'",
        statuses={0: "listed", 1: _STORE_FAULT},
        as_json=True,
    )
)
def history(*, lines: Lines = 20, home: Home = None, json: Json = False) -> int:
    """List the versions, the newest first: when, by whom, why, and which rules they changed."""
    printed.print_history(_store(home).history(), lines=max(0, lines), as_json=json)
    return 0


@policy.command(
    help_epilogue=help_end(
        "qtctl policy profiles",
        "qtctl policy profiles --json | jq .source.changes",
        statuses={0: "listed", 1: "never"},
        as_json=True,
    )
)
def profiles(*, json: Json = False) -> int:
    """List the profiles, each with the rules that it does not leave at their default."""
    printed.print_profiles(as_json=json)
    return 0


@policy.command(
    help_epilogue=help_end(
        "qtctl policy exits",
        "qtctl policy exits --json | jq .CHALLENGE_100.targets",
        statuses={0: "listed", 1: "never", 2: "bad usage: the file of profiles cannot be used"},
        as_json=True,
    )
)
def exits(*, home: Home = None, json: Json = False) -> int:
    """List the exit profiles that `exit_profile` may name: those built in, and of policy/exits.toml in the home."""
    printed.print_exit_profiles(kept_exit_profiles(_store(home).path.parent), file_name=FILE_NAME, as_json=json)
    return 0


@policy.command(
    help_epilogue=help_end("qtctl policy schema | jq .properties.risk", statuses={0: "printed", 1: "never"})
)
def schema() -> int:
    """Print the JSON schema of a policy: every rule with its section, bounds, default and meaning."""
    from inference.policy.schema import policy_schema  # noqa: PLC0415 - only who asks pays for it
    from inference.telemetry.printed import print_json  # noqa: PLC0415 - as above

    print_json(policy_schema())
    return 0


@policy.command(
    help_epilogue=help_end(
        "qtctl policy validate policy.toml",
        "qtctl policy validate policy.json --json | jq .fingerprint",
        statuses={
            0: "it can be used",
            1: "never",
            2: "bad usage: it cannot be used; the message names the rule and its bounds",
        },
        as_json=True,
    )
)
def validate(
    file: Annotated[Path, Parameter(help="TOML or JSON file with rules, flat or in sections.")],
    /,
    *,
    json: Json = False,
) -> int:
    """Check a file of rules, and show what it changes from the built-in ones."""
    found = read_policy(file)
    usable_exit_profile(found, kept_exit_profiles(_store(None).path.parent))
    about = {"file": str(file), "fingerprint": found.fingerprint}
    title = f"{file} can be used ({found.fingerprint[:12]}); from the built-in rules it changes:"
    printed.print_changes(Policy(), found, about=about, title=title, as_json=json)
    return 0


@policy.command(
    help_epilogue=help_end(
        "qtctl policy recover",
        statuses={
            0: "the store is whole again",
            1: "the snapshot cannot be trusted either",
            2: "bad usage: nothing was damaged",
        },
        as_json=True,
    )
)
def recover(*, home: Home = None, json: Json = False) -> int:
    """Make a damaged store again from its snapshot; the damaged file is kept beside it."""
    from inference.telemetry.printed import print_json  # noqa: PLC0415 - as above

    found, aside = _store(home).recover()
    if json:
        print_json(printed.version_document(found) | {"kept": None if aside is None else str(aside)})
        return 0
    kept = "" if aside is None else f"; the damaged file is kept as {aside}"
    sys.stdout.write(f"{printed.version_title(found)}\nThe store is whole again{kept}.\n")
    return 0


def _asked(before: Policy, changes: Sequence[str], file: Path | None, name: str | None) -> tuple[Policy, Source, str]:
    if file is not None and name is not None:
        raise PolicyError("Name a file or a profile, not both")
    base, source, of = before, Source.SET, ""
    if file is not None:
        base, source, of = read_policy(file), Source.FILE, str(file)
    elif name is not None:
        base, source, of = _profile_policy(name), Source.PROFILE, name
    elif not changes:
        raise PolicyError("Say what to change: RULE=VALUE, --file or --profile; `qtctl policy show` lists the rules")
    found: dict[str, object] = {}
    for one in changes:
        key, equals, value = one.partition("=")
        if not equals:
            raise PolicyError(f"A change is written RULE=VALUE, was {one[:80]!r}")
        rule = rule_named(key.strip())
        if rule in found:
            raise PolicyError(f"{rule} is set twice; set it once")
        found[rule] = value_of_text(rule, value)
    return replace(base, **found), source, of  # type: ignore[arg-type]


def _shown(before: Policy, after: Policy, *, at: int, as_json: bool) -> int:
    about = {"version": None, "dry_run": True, "fingerprint": after.fingerprint}
    title = f"Nothing was changed. From version {at} this would change:"
    printed.print_changes(before, after, about=about, title=title, as_json=as_json)
    return 0


def _told(before: Policy, made: PolicyVersion, *, as_json: bool) -> int:
    about = printed.version_document(made) | {"dry_run": False}
    printed.print_changes(
        before, made.policy, about=about, title=f"{printed.version_title(made)}\n{_TAKEN}", as_json=as_json
    )
    return 0


def _compared(store: PolicyStore, name: str) -> Policy:
    if name in PROFILES:
        return PROFILES[name].policy
    if name in (_CURRENT, "previous"):
        versions = store.history()
        back = 1 if name == _CURRENT else 2
        return versions[-back].policy if len(versions) >= back else Policy()
    if name.isdecimal() and len(name) < 10:
        return store.version(int(name)).policy
    if Path(name).is_file():
        return read_policy(Path(name))
    raise PolicyError(
        f"There is no version, profile or file {name[:80]!r}; name a version's number, current, previous,"
        f" {', '.join(PROFILES)}, or a file"
    )


def _profile_policy(name: str) -> Policy:
    return profile(name).policy


def _version(store: PolicyStore, number: int | None) -> PolicyVersion | None:
    return store.newest() if number is None else store.version(number)


def _store(home: Path | None) -> PolicyStore:
    chosen = home or Path(os.environ.get("QUANTUM_HOME") or str(Settings.model_fields["home"].default))
    return PolicyStore(chosen / "policy", now_ms=utc_now_ms)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "user"
