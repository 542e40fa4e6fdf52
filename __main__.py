"""`cm2`; and `python -m cm2`, so that `torchrun -m cm2` can start several processes."""

from __future__ import annotations

import sys

from .errors import Interrupted


def main() -> None:
    """Run the command line; an interrupt while it is being loaded ends it as any later one does."""
    try:
        from .cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("stopped; give the same command again\n")
        sys.exit(Interrupted.exit_code)
    run()


if __name__ == "__main__":
    main()
