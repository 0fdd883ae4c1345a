"""`qtctl`: the commands that the installed parts offer, found by entry point and loaded only when asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib import metadata

from cyclopts import App

from feature_store import terminal

GROUP = "qtctl.commands"
DISTRIBUTION = "quantum-trader"

# What runs from a checkout that is on the path without being installed, as on the worker's light install.
_FROM_SOURCE = {
    "worker": "inference.commands:worker",
    "audit": "inference.commands:audit",
    "backup": "inference.backup_commands:backup",
    "restore": "inference.backup_commands:restore",
    "db": "inference.storage_commands:db",
    "events": "inference.event_commands:events",
    "models": "inference.commands:models",
    "stop": "inference.emergency_commands:stop",
    "resume": "inference.emergency_commands:resume",
    "flatten": "inference.emergency_commands:flatten",
    "policy": "inference.policy_commands:policy",
}
_HELP = """Operate Quantum Trader: data, training, models, the trading worker and its record.

Start everything with 'qtctl up', see what runs with 'qtctl status', and ask any command for --help.
"""
_HELP_END = terminal.help_end(
    "qtctl up",
    "qtctl retrain --help",
    statuses={
        0: "done",
        1: "failed; standard error says what, and what to do",
        3: "refused: no model passed the gates",
    },
    as_json=True,
)


def command_paths() -> dict[str, str]:
    """Return where each command lives, as `module:object`, by its name."""
    installed = {point.name: point.value for point in metadata.entry_points(group=GROUP)}
    # Those of the worker are offered by every install, also by one that was made before they were there.
    return dict(_FROM_SOURCE) | installed


def load_command(path: str) -> App | None:
    """Return a command, or None where the packages it needs are not installed."""
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError:
        return None
    command: App | None = getattr(module, attribute, None)
    return command


def build(names: Sequence[str], paths: dict[str, str]) -> App:
    """Return the app with those of the named commands that can run here."""
    app = App(name="qtctl", help=_HELP, help_format="plaintext", help_epilogue=_HELP_END, version=version)
    for name in names:
        command = load_command(paths[name])
        if command is not None:
            app.command(command, name=name)
    return app


def version() -> str:
    """Return the installed version."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "not installed, running from source"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `qtctl` and exit with its status."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit status: 0 done, 1 failed, 2 bad usage, or what the command says."""
    paths = command_paths()
    wanted = arguments[0] if arguments else ""
    if wanted in paths and load_command(paths[wanted]) is None:
        return terminal.tell(
            f"qtctl {wanted} is not offered by this install; install what it needs: pip install '{DISTRIBUTION}[dev]'",
            terminal.BAD_USAGE,
            as_json=terminal.JSON_OPTION in arguments,
        )
    return terminal.run(build([wanted] if wanted in paths else sorted(paths), paths), arguments)


if __name__ == "__main__":
    main()
