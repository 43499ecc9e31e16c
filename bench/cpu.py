"""CPU time of a server's processes and of this one, its client, by kind of process.

Promises: a process that has ended is skipped.
"""

import contextlib
import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")  # per second, /proc's unit of CPU time

# By the metric's name in the JSON, in µs per token
CLIENT, NGINX, API_SERVER, ENGINE = "client_cpu", "nginx_cpu", "api_server_cpu", "engine_cpu"
TITLES = {"VLLM::": ENGINE, "nginx:": NGINX}  # prefixes of the process titles


class Meter:
    """Reads the CPU time of this process and all its descendants."""

    def __init__(self) -> None:
        self.pids: dict[str, list[int]] = {CLIENT: [], NGINX: [], API_SERVER: [], ENGINE: []}
        for pid in family(os.getpid()):
            self.pids[_kind(pid)].append(pid)

    def read(self) -> dict[str, float]:
        """In s, by the name of the metric."""
        return {name: cpu_seconds(pids) for name, pids in self.pids.items()}


def _kind(pid: int) -> str:
    if pid == os.getpid():
        return CLIENT
    title = ""
    with contextlib.suppress(OSError):
        title = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    return next((name for start, name in TITLES.items() if title.startswith(start)), API_SERVER)


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            children.setdefault(int(stat(path)[1]), []).append(int(path.parent.name))
    found, ahead = [], [pid]
    while ahead:
        found.append(ahead.pop())
        ahead += children.get(found[-1], [])
    return found


def cpu_seconds(pids: list[int]) -> float:
    """CPU time of processes, including children that they have waited for."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            ticks += sum(map(int, stat(Path(f"/proc/{pid}/stat"))[11:15]))
    return ticks / TICKS


def stat(path: Path) -> list[str]:
    """The fields of a /proc/…/stat after the program's name, which may contain spaces: the state,
    the parent's id and so on, from the third field in proc(5)."""
    return path.read_text().rpartition(")")[2].split()
