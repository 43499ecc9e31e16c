"""Runs before any command: checks the Python version, and avoids a traceback for Ctrl-C."""

import signal
import sys

if sys.version_info < (3, 9):  # noqa: UP036 - make runs any python3
    has = ".".join(map(str, sys.version_info[:2]))
    sys.exit(f"make: this is Python {has}, and 3.9 is the oldest that will do: PYTHON=python3.11")
if sys.argv[0] == "-m":  # while `python -m scripts.…` imports; scripts/command.py takes over
    signal.signal(signal.SIGINT, signal.SIG_DFL)
