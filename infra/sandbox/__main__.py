"""`python -m infra.sandbox` is the same as `qtctl sandbox`."""

from __future__ import annotations

from infra.sandbox.cli import main

if __name__ == "__main__":
    main()
