# PYTHON_ARGCOMPLETE_OK
"""``fastoptim`` and ``python -m fastoptim``: the command line as a process."""

import sys

from fastoptim._terminal import Interruption

__all__ = ["main"]


def main() -> int:
    """Run the command line with its own handlers of Ctrl-C and SIGTERM.

    Returns
    -------
    int
        The exit code.
    """
    interruption = Interruption()
    interruption.listen()
    # This import takes long enough to be interrupted.
    from fastoptim import cli

    return cli.main(interruption=interruption)


if __name__ == "__main__":
    sys.exit(main())
