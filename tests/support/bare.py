"""A server that does nothing, to measure the minimum time of an answer on this machine under load.

Promises: `bare_server` is uvicorn with uvloop, like vLLM, in its own process. It answers 404 to
everything.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from deploy.paths import ROOT

PORT = 8917
URL = f"http://127.0.0.1:{PORT}"


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@contextmanager
def bare_server() -> Iterator[str]:
    """Its address."""
    words = ["uvicorn", "tests.support.bare:app", f"--port={PORT}", "--log-level=warning"]
    process = subprocess.Popen([sys.executable, "-m", *words, "--loop=uvloop"], cwd=ROOT)
    try:
        for _ in range(600):
            try:
                httpx.get(URL, trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield URL
    finally:
        process.terminate()
        process.wait()
