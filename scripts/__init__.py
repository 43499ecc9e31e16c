"""Before any command: a Python that can read it, and no traceback for Ctrl-C while it imports."""

import signal
import sys

if sys.version_info < (3, 9):  # noqa: UP036 - make runs whatever python3 is
    has = ".".join(map(str, sys.version_info[:2]))
    sys.exit(f"make: this is Python {has}, and 3.9 is the oldest that will do: PYTHON=python3.11")
if sys.argv[0] == "-m":  # so while `python -m scripts.…` imports; scripts/command.py takes over
    signal.signal(signal.SIGINT, signal.SIG_DFL)
