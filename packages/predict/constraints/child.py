"""The process that tries constraints (process.py), as the API server has it.

Promises: the first one starts beside vLLM, for its libraries take seconds to import; it ends when
the API server does. Nobody waits for what it is sent.
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
# A fork of it has one thread, whatever numpy would start for every core.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
LINE_BYTES = 1 << 20  # of an answer


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
        """Tells it the tokenizer; whether it is ready then."""
        opened = asyncio.open_connection(sock=self.socket, limit=LINE_BYTES)
        self.answers, self.requests = await opened
        self.ask(setup)
        return bool(await self.answer())

    def ask(self, request: dict[str, Any]) -> None:
        if self.requests is None or self.requests.is_closing():
            raise ConnectionError
        self.requests.write(json.dumps(request).encode() + b"\n")

    async def answer(self) -> bytes:
        """The next line; empty where there is none any more."""
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
    with contextlib.suppress(OSError):  # the first constraint tries again, and says so
        early.append(Child())


async def begun(setup: dict[str, Any]) -> Child:
    """One that is ready, the early one unless it has died; ConnectionError where none can be."""
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
