"""Compile the kernel ahead of time: `python -m feature_store.features.warm`, once at set-up."""

from __future__ import annotations

import os
import sys

from feature_store.clock import monotonic
from feature_store.features import native
from feature_store.features.linking import LinkError
from feature_store.features.machine_code import write


def keep() -> str:
    """Make the kernel's machine code unless it is kept already, keep it, and say where it is."""
    if not native.is_portable():
        return "compiled by each process for itself: machine code is kept on Linux x86-64 only"
    if native.kept_addresses() is not None:
        return "kept already"
    # Numba shall only translate, for any processor; it reads these when it is imported. What a processor can do is made
    # use of afterwards, for each level of code.
    os.environ.update(NUMBA_OPT="0", NUMBA_CPU_NAME="x86-64", NUMBA_CPU_FEATURES="")
    from feature_store.features.compiling import portable_block  # noqa: PLC0415 - see above

    try:
        block = portable_block()
    except LinkError as error:
        return f"compiled by each process for itself: {error}"
    refused = []
    for path in native.files():
        try:
            write(path, block, made_from=native.made_from())
        except OSError as error:
            refused.append(f"{path}: {error.strerror}")
        else:
            return f"kept in {path}"
    return f"compiled by each process for itself, set {native.FOLDER_VARIABLE} to a folder: {'; '.join(refused)}"


def main() -> int:
    """Keep the kernel's machine code and say how long it took."""
    started = monotonic()
    outcome = keep()
    sys.stdout.write(f"feature kernel {outcome} ({monotonic() - started:.1f} s)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
