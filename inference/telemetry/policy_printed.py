"""Policies, their versions and what differs between them, printed for people and for machines."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from inference.domain.exit_profile import ExitProfile
from inference.domain.policy import BARRIERS, Policy, policy_rules
from inference.domain.policy_rules import Section
from inference.policy.profiles import PROFILES
from inference.policy.values import in_sections, value_text
from inference.policy.versions import PolicyVersion, differences
from inference.telemetry.printed import print_json

_CHANGES_SHOWN = 6


def version_document(version: PolicyVersion) -> dict[str, object]:
    """Return what is said of a version, without its rules."""
    return {
        "version": version.number,
        "fingerprint": version.policy.fingerprint,
        "author": version.author,
        "reason": version.reason,
        "made_at": _moment(version.made_ms),
        "source": version.source.value,
        "of": version.of,
    }


def print_policy(
    policy: Policy, about: Mapping[str, object], *, section: Section | None, title: str, as_json: bool
) -> None:
    """Print the rules of a policy by section; those that are not at their default are marked."""
    shown = {name: rules for name, rules in in_sections(policy).items() if section in (None, name)}
    if as_json:
        print_json({**about, "rules": shown})
        return
    sys.stdout.write(f"{title}\n")
    defaults = Policy()
    for name, rules in shown.items():
        sys.stdout.write(f"\n{name}\n")
        for one in rules:
            value, usual = getattr(policy, one), getattr(defaults, one)
            about_rule = policy_rules()[one]
            bounds = f", in {about_rule.bounds.text}" if about_rule.bounds is not None else ""
            changed = "" if value == usual else f"; by default {value_text(usual)}"
            sys.stdout.write(f"  {one} = {value_text(value)}  ({about_rule.says}{bounds}{changed})\n")


def print_exit_profiles(profiles: Mapping[str, ExitProfile], *, file_name: str, as_json: bool) -> None:
    """Print the exit profiles that a policy may name, each with its rules."""
    if as_json:
        print_json({name: msgspec.to_builtins(one) for name, one in profiles.items()})
        return
    sys.stdout.write(f"{BARRIERS}\n  one stop, one target and a time, by the policy's own rules; the default\n")
    for name, one in profiles.items():
        sys.stdout.write(f"{name}\n")
        for rule in ExitProfile.__struct_fields__:
            value = getattr(one, rule)
            if rule not in ("name", "targets"):
                sys.stdout.write(f"  {rule} = {value_text(value)}\n")
        for number, target in enumerate(one.targets, 1):
            away = f"{target.r} R" if target.r is not None else f"{target.atr} ranges"
            sys.stdout.write(f"  target {number}: {target.share:%} of it at {away}\n")
    sys.stdout.write(f"Others are written into policy/{file_name} of the home.\n")


def version_title(version: PolicyVersion) -> str:
    """Return a version in a line."""
    return (
        f"Policy version {version.number} ({version.policy.fingerprint[:12]}), made {_moment(version.made_ms)} by"
        f" {version.author}: {version.reason}"
    )


def print_changes(before: Policy, after: Policy, *, about: Mapping[str, object], title: str, as_json: bool) -> None:
    """Print what differs between two policies."""
    rules, found = policy_rules(), differences(before, after)
    if as_json:
        changes = [
            {
                "rule": name,
                "section": rules[name].section.value,
                "from": msgspec.to_builtins(old),
                "to": msgspec.to_builtins(new),
            }
            for name, (old, new) in found.items()
        ]
        print_json({**about, "changes": changes})
        return
    sys.stdout.write(f"{title}\n")
    for name, (old, new) in found.items():
        sys.stdout.write(f"  {rules[name].section.value}.{name}: {value_text(old)} -> {value_text(new)}\n")
    if not found:
        sys.stdout.write("  nothing differs\n")


def print_history(versions: Sequence[PolicyVersion], *, lines: int, as_json: bool) -> None:
    """Print the newest versions, the newest first, each with what it changed."""
    before = {one.number + 1: one.policy for one in versions}
    newest = versions[::-1][:lines]
    if as_json:
        print_json(
            [
                version_document(one) | {"changes": sorted(differences(before.get(one.number, Policy()), one.policy))}
                for one in newest
            ]
        )
        return
    for one in newest:
        found = differences(before.get(one.number, Policy()), one.policy)
        source = f"{one.source.value} {one.of}".strip()
        sys.stdout.write(f"{one.number}  {_moment(one.made_ms)}  {one.author}  {source}: {one.reason}\n")
        changes = [f"{name}={value_text(new)}" for name, (_, new) in found.items()]
        more = f" and {len(changes) - _CHANGES_SHOWN} more" if len(changes) > _CHANGES_SHOWN else ""
        sys.stdout.write(f"   {', '.join(changes[:_CHANGES_SHOWN]) or 'as built in'}{more}\n")
    if not newest:
        sys.stdout.write("There is no version yet; the first is made by `qtctl policy set` or by the worker's start.\n")


def print_profiles(*, as_json: bool) -> None:
    """Print the profiles, each with the rules that it does not leave at their default."""
    if as_json:
        print_json(
            {
                name: {
                    "says": one.says,
                    "fingerprint": one.policy.fingerprint,
                    "changes": {
                        rule: msgspec.to_builtins(new) for rule, (_, new) in differences(Policy(), one.policy).items()
                    },
                }
                for name, one in PROFILES.items()
            }
        )
        return
    for name, one in PROFILES.items():
        sys.stdout.write(f"{name}: {one.says}\n")
        for rule, (_, new) in differences(Policy(), one.policy).items():
            sys.stdout.write(f"  {rule} = {value_text(new)}\n")


def _moment(made_ms: int) -> str:
    try:
        return datetime.fromtimestamp(made_ms / 1000, tz=UTC).isoformat(timespec="seconds")
    except (OverflowError, OSError, ValueError):
        return f"{made_ms} ms"
