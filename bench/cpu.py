"""The processes of what is measured: which there are, what they are, and the CPU time they take.

Promises: what is held takes no CPU time, and goes on afterwards. A process that has ended is passed
over.
"""

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.metrics import Figure

TICKS = os.sysconf("SC_CLK_TCK")  # a second, as /proc counts CPU time

ENGINE = "engine_cpu_us"
NGINX = "nginx_cpu_us"
FRONT = "front_cpu_us"
CLIENT = "client_cpu_us"
ALL = "cpu_us"
# By the name the figure has in the JSON; in the order of the tables
CPU = {
    CLIENT: Figure("the client", 0),
    NGINX: Figure("nginx", 0),
    FRONT: Figure("the server before the engine", 0),
    ENGINE: Figure("the engine", 0),
    ALL: Figure("all of them", 0),
}
TITLES = {"VLLM::": ENGINE, "nginx:": NGINX}  # how these begin what they call themselves


class Meter:
    """Reads the CPU time that a server's processes and this one, its client, have used."""

    def __init__(self, pids: Iterable[int]) -> None:
        self.pids: dict[str, list[int]] = {name: [] for name in CPU}
        for pid in pids:
            self.pids[_figure(pid)].append(pid)
            self.pids[ALL].append(pid)

    def read(self) -> dict[str, float]:
        """In s, by the name of the figure it is for."""
        return {name: cpu_seconds(pids) for name, pids in self.pids.items()}


def _figure(pid: int) -> str:
    if pid == os.getpid():
        return CLIENT
    title = command(pid)
    return next((name for start, name in TITLES.items() if title.startswith(start)), FRONT)


@contextlib.contextmanager
def held(pids: Iterable[int]) -> Iterator[None]:
    """The processes stand still for as long as the block lasts."""
    pids = list(pids)
    try:
        send(pids, signal.SIGSTOP)
        yield
    finally:
        send(pids, signal.SIGCONT)


def send(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended while we looked
            children.setdefault(int(stat(path)[1]), []).append(int(path.parent.name))
    found, ahead = [], [pid]
    while ahead:
        found.append(ahead.pop())
        ahead += children.get(found[-1], [])
    return found


def command(pid: int) -> str:
    """What a process calls itself; nothing when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
    except OSError:
        return ""


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time that processes have used, those included that they have waited for."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            ticks += sum(map(int, stat(Path(f"/proc/{pid}/stat"))[11:15]))
    return ticks / TICKS


def is_alive(pid: int) -> bool:
    try:
        return stat(Path(f"/proc/{pid}/stat"))[0] not in "ZX"
    except OSError:
        return False


def stat(path: Path) -> list[str]:
    """The fields of a /proc/…/stat behind the program's name, which may have spaces: the state, the
    parent's id and so on, as proc(5) has them from the third on."""
    return path.read_text().rpartition(")")[2].split()
