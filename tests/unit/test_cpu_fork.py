"""A fork of vLLM's has signals of its own, though its parent has an event loop for them."""

import os
import subprocess
import sys

from deploy.paths import ROOT

FORKING = """
import asyncio, os, signal, sys
import cpu_fork

async def main():
    heard = []
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, heard.append, signal.SIGTERM)
    if sys.argv[1:]:
        os.register_at_fork(after_in_child=cpu_fork.begin_anew)
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(7))
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(1)
    _, status = os.waitpid(pid, 0)
    await asyncio.sleep(0.1)  # what came before it is handled by then
    print(os.waitstatus_to_exitcode(status), heard != [])

asyncio.run(main())
"""


def told(*words: str) -> str:
    """The fork's exit code, and whether its parent heard the fork's signal."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "local" / "cpu")}
    command = [sys.executable, "-c", FORKING, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout.strip()


def test_a_fork_s_signals_are_not_taken_for_its_parent_s() -> None:
    assert told("anew") == "7 False"
    assert told() == "7 True"  # what it is for
