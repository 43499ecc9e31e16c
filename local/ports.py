"""Finds the process that listens on a port of this machine, from Linux's /proc.

Promises: makes no connection; for a process in a container, names its `make serve`. None if no
process listens, or if it belongs to another user and its files cannot be read.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

LISTENING = "0A"  # the state in /proc/net/tcp
SHOWN = 80  # characters of a command line
SERVE = "-m scripts.serve"
PARENT = re.compile(r"^PPid:\s*(\d+)$", re.MULTILINE)


def listener(port: int) -> str | None:
    """The process that listens on a port: "process 123 (python -m http.server 8080)"."""
    sockets = sockets_of(port)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            if any(name in sockets for name in open_files(process)):
                named = run_by(process)
                return f"process {named.name} ({' '.join(words_of(named))[:SHOWN]})"
    return None


def run_by(process: Path) -> Path:
    """The `make serve` whose container a process is in, or else the process itself."""
    found = process
    with contextlib.suppress(OSError):  # an ancestor has ended, or is another user's
        while SERVE not in " ".join(words_of(found)):
            (parent,) = PARENT.findall((found / "status").read_text())
            if parent == "0":  # found is the first process of all
                return process
            found = found.with_name(parent)
        return found
    return process


def words_of(process: Path) -> list[str]:
    """The command line of a process."""
    return (process / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")


def open_files(process: Path) -> Iterator[str]:
    """The files that a process has open, as /proc/PID/fd names them."""
    for link in (process / "fd").iterdir():
        with contextlib.suppress(OSError):  # it has been closed
            yield str(link.readlink())


def sockets_of(port: int) -> set[str]:
    """The listening sockets of a port, as /proc/PID/fd names them."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):  # a machine without IPv6
            for line in Path(table).read_text().splitlines()[1:]:
                _, local, _, state, *rest = line.split()
                if state == LISTENING and int(local.rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{rest[5]}]")
    return found
