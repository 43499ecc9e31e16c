"""A DNS server on loopback whose answer to a name changes with every question."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

ADDRESS = "127.0.0.53"
A = 1


class NameServer:
    """`answers`: the addresses of a name for the first query, the second and so on; the last one
    stays. `asked`: names, in order, of queries for an IPv4 address."""

    def __init__(self) -> None:
        self.address = ADDRESS
        self.answers = ["127.0.0.1"]
        self.asked: list[str] = []

    def reply(self, question: bytes) -> bytes:
        """As in RFC 1035, with a TTL of 0; no addresses of other types."""
        end = question.index(b"\0", 12) + 1
        name = question[12:end]
        (kind,) = struct.unpack(">H", question[end : end + 2])
        count = 0
        record = b""
        if kind == A:
            text = name.decode("latin-1")
            turn = min(self.asked.count(text), len(self.answers) - 1)
            self.asked.append(text)
            count = 1
            address = socket.inet_aton(self.answers[turn])
            record = b"\xc0\x0c" + struct.pack(">HHIH", A, 1, 0, 4) + address
        header = question[:2] + struct.pack(">HHHHH", 0x8180, 1, count, 0, 0)
        return header + question[12 : end + 4] + record


@contextmanager
def name_server() -> Iterator[NameServer]:
    """Answers on UDP port 53 of ADDRESS; a `PermissionError` for unprivileged users."""
    server = NameServer()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        port.bind((ADDRESS, 53))
        port.settimeout(0.2)
        done = threading.Event()

        def serve() -> None:
            while not done.is_set():
                with suppress(TimeoutError):
                    question, sender = port.recvfrom(4096)
                    port.sendto(server.reply(question), sender)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server
        finally:
            done.set()
            thread.join()
