"""The API server's side of the process that tries constraints (process.py).

Promises: the first process starts beside vLLM, because importing its libraries takes seconds; it
ends when the API server does. Sending to it does not wait.
"""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from typing import Any

COMMAND = (sys.executable, "-m", "predict.constraints.process")
# One thread for it and its forks, where numpy would start one per core.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
LINE_BYTES = 1 << 20  # of an answer, at most


class Child:
    answers: asyncio.StreamReader
    requests: asyncio.StreamWriter | None = None

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        environment = {**os.environ, **ONE_THREAD}
        with theirs:
            try:
                self.process = subprocess.Popen(
                    COMMAND, stdin=theirs.fileno(), stdout=theirs.fileno(), env=environment
                )
            except OSError:
                self.socket.close()
                raise

    async def begin(self, setup: dict[str, Any]) -> bool:
        """Sends it the tokenizer → whether it is then ready."""
        opened = asyncio.open_connection(sock=self.socket, limit=LINE_BYTES)
        self.answers, self.requests = await opened
        self.ask(setup)
        return bool(await self.answer())

    def ask(self, request: dict[str, Any]) -> None:
        if self.requests is None or self.requests.is_closing():
            raise ConnectionError
        self.requests.write(json.dumps(request).encode() + b"\n")

    async def answer(self) -> bytes:
        """The next line; empty if the process has ended."""
        try:
            return await self.answers.readline()
        except ConnectionError:
            return b""

    async def end(self) -> None:
        self.process.kill()
        (self.requests or self.socket).close()
        await asyncio.to_thread(self.process.wait)


early: list[Child] = []


def start_early() -> None:
    with contextlib.suppress(OSError):  # the first constraint tries again, and logs it
        early.append(Child())


async def begun(setup: dict[str, Any]) -> Child:
    """A process that is ready: the early one unless it has died; `ConnectionError` if none
    starts."""
    was_early = bool(early)
    child = early.pop() if was_early else Child()
    try:
        if await child.begin(setup):
            return child
    except BaseException:
        child.process.kill()
        raise
    await child.end()
    if was_early:
        return await begun(setup)
    raise ConnectionError
