"""`python own_network.py WORDS…` becomes `python WORDS…` on its own network, with loopback only.

Promises: each has its own ports 8080 and 8000, so that containers can run side by side. A
connection buffers little, so that the server soon notices a client that does not read. Refuses,
with Linux's error, if neither root nor an unprivileged user may create a network.
Standard library only: it runs before anything of this repository can be imported.
"""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import sys
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # <linux/sched.h>
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # <linux/sockios.h>, <linux/if.h>
BUFFERS = "4096 16384 131072"  # bytes of a TCP socket: min, initial, max (tcp(7)); default max 4 MB


def enter() -> None:
    """Moves this process into the network; without root it needs a user namespace, as itself."""
    user, group = os.getuid(), os.getgid()
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET | (CLONE_NEWUSER if user else 0)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
    with contextlib.suppress(OSError):  # if /proc/sys is read-only, the buffers take longer to fill
        for name in ("tcp_wmem", "tcp_rmem"):
            Path("/proc/sys/net/ipv4", name).write_text(BUFFERS)


if __name__ == "__main__":
    enter()
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
