"""`python -m cm2`, so that `torchrun -m cm2` can start several processes."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main()
