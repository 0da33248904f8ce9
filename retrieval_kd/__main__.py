"""`python -m retrieval_kd` is the command `rkd`. Ctrl-C is in order even while it is imported."""

from __future__ import annotations

import os
import signal


def main() -> None:
    signal.signal(signal.SIGINT, _leave)  # until the command sets its own
    from retrieval_kd.cli.app import main

    main()


def _leave(number: int, frame: object) -> None:
    """Exit at once: nothing has been begun, and an exception would go astray in an import."""
    os.write(2, b"rkd: interrupted\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
