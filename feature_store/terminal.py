"""What every command line of the project shares: how its help ends, and how it fails."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence

from cyclopts import App, CycloptsError

from feature_store.errors import BadInputError, QuantumError

OK, FAILED, BAD_USAGE, REFUSED, HELD, INTERRUPTED, READER_GONE = 0, 1, 2, 3, 4, 130, 141
"""
Exit statuses. A refusal, and a model that is held back until there is more evidence, are answers and no failures;
shells call Ctrl-C 130, and a pipe that nobody reads 141.
"""

JSON_OPTION = "--json"
_WIDTH = 79
_SAID_OF_ALL = {
    BAD_USAGE: "bad usage: an unknown option, or a value that cannot be used",
    INTERRUPTED: "interrupted by Ctrl-C",
}


def help_end(*examples: str, statuses: Mapping[int, str], as_json: bool = False) -> str:
    """
    Return the end of a command's help, in plain text: examples, and what each exit status means.

    Args:
        examples: Whole command lines, such as `qtctl ingest --days 90`.
        statuses: What each status means for this command; the ones that mean the same for all are added.
        as_json: Whether the command takes --json.
    """
    meanings = {**_SAID_OF_ALL, **statuses}
    lines = ["Examples:", *(f"  {example}" for example in examples), "", "Exit status:"]
    for status in sorted(meanings):
        lines += textwrap.wrap(f"  {status:<3}  {meanings[status]}", _WIDTH, subsequent_indent=" " * 7)
    if as_json:
        lines += [
            "",
            'With --json, a command that fails prints {"error": "...", "exit_status": 1} instead of a result.',
        ]
    return "\n".join(lines)


def run(app: App, arguments: Sequence[str]) -> int:
    """
    Run one command and return its exit status.

    What goes wrong is one sentence on standard error and, where JSON was asked for, one JSON object on standard output.
    """
    as_json = JSON_OPTION in arguments
    try:
        result = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        command = " ".join([*app.name, *(error.command_chain or ())])
        return tell(f"{error} See '{command} --help'.", BAD_USAGE, as_json=as_json)
    except BadInputError as error:
        return tell(str(error), BAD_USAGE, as_json=as_json)
    except QuantumError as error:
        return tell(str(error), FAILED, as_json=as_json)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output (`| head`) has enough; what Python still holds of it must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    return result if isinstance(result, int) else OK


def tell(sentence: str, status: int, *, as_json: bool) -> int:
    """Say what went wrong, to the person and, where asked for, to the machine; return the status."""
    sys.stderr.write(f"{sentence}\n")
    if as_json:
        sys.stdout.write(json.dumps({"error": sentence, "exit_status": status}) + "\n")
    return status
