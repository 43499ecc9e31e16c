"""Who listens on a port of this machine, as Linux tells it.

Promises: nothing is connected to. None where nobody listens, or where the process is another
user's, whose files cannot be looked at.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

LISTENING = "0A"  # the state in /proc/net/tcp
SHOWN = 80  # characters of a command line


def listener(port: int) -> str | None:
    """The process that listens on a port: "process 123 (python -m http.server 8080)"."""
    sockets = sockets_of(port)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while we looked, or is another user's
            if any(name in sockets for name in open_files(process)):
                words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
                return f"process {process.name} ({' '.join(words).strip()[:SHOWN]})"
    return None


def open_files(process: Path) -> Iterator[str]:
    """What a process has open, as /proc/PID/fd names it."""
    for link in (process / "fd").iterdir():
        with contextlib.suppress(OSError):  # it was closed while we looked
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
