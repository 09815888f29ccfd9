"""Entry point of ``rotary-spec`` and of ``python -m rotary_spec``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; say what to install where its terminal libraries are missing."""
    try:
        from rotary_spec.cli import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        print(
            f"rotary-spec: the command needs {error.name}: pip install 'rotary-spec[cli]'",
            file=sys.stderr,
        )
        sys.exit(2)
    app(prog_name="rotary-spec")


if __name__ == "__main__":
    main()
