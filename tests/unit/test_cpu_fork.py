"""A fork of vLLM's has signals of its own, its parent's port is not kept open by it, and the memory
of a step is."""

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


def told(*words: str, program: str = FORKING, **variables: str) -> str:
    """What the program printed: of FORKING the fork's exit code, and whether its parent heard the
    fork's signal."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "local" / "cpu"), **variables}
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def test_a_fork_s_signals_are_not_taken_for_its_parent_s() -> None:
    assert told("anew") == "7 False"
    assert told() == "7 True"  # what it is for


LISTENING = """
import os, socket, sys
import cpu_fork

if sys.argv[1:]:
    os.register_at_fork(after_in_child=cpu_fork.begin_anew)
held = socket.socket()
held.bind(("127.0.0.1", 0))
port, (ours, theirs) = held.getsockname()[1], socket.socketpair()
if os.fork() == 0:
    theirs.send(b".")  # a pair is not a port
    theirs.recv(1)
    os._exit(0)
held.listen()
held.close()
ours.recv(1)
with socket.socket() as client:
    print(client.connect_ex(("127.0.0.1", port)) == 0)
ours.send(b".")
os.wait()
"""


def test_a_port_is_closed_with_the_parent() -> None:
    assert told(program=LISTENING) == "True"  # what it is for
    assert told("anew", program=LISTENING) == "False"


# Prints the page faults of a fork's steps, each of which takes 48 MiB.
STEPPING = """
import ctypes, os, resource, sys
import cpu_fork

PR_SET_THP_DISABLE = 41  # with large pages there would be few
ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
if sys.argv[1:]:
    os.register_at_fork(after_in_child=cpu_fork.begin_anew)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if os.fork() == 0:
    bytearray(48 << 20)
    before = faults()
    for _ in range(5):
        bytearray(48 << 20)
    print(faults() - before, flush=True)
    os._exit(0)
os.wait()
"""


def test_a_fork_keeps_the_memory_of_a_step() -> None:
    threshold = {"MALLOC_MMAP_THRESHOLD_": str(128 << 10)}  # as deploy/variables.py sets it
    pages = 5 * (48 << 20) // 4096
    assert int(told(program=STEPPING, **threshold)) >= pages  # what it is for
    assert int(told("anew", program=STEPPING, **threshold)) < pages / 10
