"""``python -m fastoptim`` and ``fastoptim``: the command line as a process of its own."""

import os
import signal
import sys
from types import FrameType

__all__ = ["main"]


def main() -> int:
    """Run the command line; Ctrl-C shows no traceback from the first moment to the last.

    Returns
    -------
    int
        The exit code.
    """
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, _leave)
    try:
        from fastoptim import cli

        return cli.main()
    finally:
        if interruptible:
            # All is done, and what Python does at its end should not be broken off.
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _leave(number: int, _frame: FrameType | None) -> None:
    # An import or a compilation that is broken off may raise anything, or crash. There is nothing to lose yet.
    try:
        print("fastoptim: interrupted before the first iteration: nothing is written", file=sys.stderr, flush=True)
    finally:
        os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
