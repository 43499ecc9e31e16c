"""Runs the test suite, or a part of it: tests/unit, tests/platform or tests/container.

Promises: unit tests run first, those that import vLLM alongside the others. A machine with room
for several containers runs them at once, each on its own network with its tests
(tests/support/own_network.py), and one more process runs platform tests alongside them. Other
machines run one container at a time, after everything else; a line says so if this user may not
create networks.
"""

import argparse
import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from deploy import cards
from deploy.paths import ROOT
from local import clients
from local.standins.cache import ensure_all
from scripts.command import command

OWN_NETWORK = shlex.join([sys.executable, str(ROOT / "tests" / "support" / "own_network.py")])
WITH_VLLM = "tests/unit/with_vllm"
# Of the others, what runs with those that import vLLM, so that both runs take equally long.
BALANCE = "tests/unit/test_images_fetch.py"
INTERRUPTED = 2  # pytest's exit code
# The peak of a container and its tests: one core, as they often wait. Tests that watch how streams
# flow and end take turns with all others (tests/support/turns.py).
CORES, MEMORY = 1, 7 << 30  # bytes


def runs(layer: str | None, model: str | None, cores: int, at_once: int) -> list[list[list[str]]]:
    """Arguments of pytest, as groups of runs: the runs of a group run at once, the groups one after
    the other. `at_once`: how many containers may run at a time."""
    if layer == "unit":
        return [unit(cores)]
    if layer == "platform":
        return [[["tests/platform", *spread(cores)]]]
    if layer == "container":
        alone = apart(at_once) if at_once > 1 else []
        return [[["tests/container", *alone, *([f"--model={model}"] if model else [])]]]
    # not alongside the unit tests, which patch modules that other layers' fakes run on
    if at_once > 1:
        # one more process, for the cores while tests of containers wait
        both = [*apart(at_once + 1), f"--containers={at_once}"]
        return [unit(cores), [["tests/platform", "tests/container", *both]]]
    return [unit(cores), [["tests/platform", *spread(cores)]], [["tests/container"]]]


def apart(processes: int) -> list[str]:
    """Each process on its own network."""
    each = f"--tx={processes}*popen//python={OWN_NETWORK}"
    return [each, "--dist=loadgroup", "--no-loadscope-reorder"]


def unit(cores: int) -> list[list[str]]:
    """The runs of the unit tests: two, because otherwise each pytest-xdist process would import
    vLLM, for 7 s, to collect the same tests."""
    if cores < 2:
        return [["tests/unit"]]
    without = [f"--ignore={WITH_VLLM}", f"--ignore={BALANCE}"]
    others = ["tests/unit", *without, *spread(cores - cores // 2)]
    return [others, [WITH_VLLM, BALANCE, *spread(cores // 2)]]


def spread(cores: int) -> list[str]:
    return [f"--numprocesses={cores}", "--dist=worksteal"] if cores > 1 else []


def containers_at_once(cores: int) -> int:
    """How many containers this machine has cores, memory and networks for."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    most = min(cores // CORES, memory // MEMORY)
    if most < 2:
        return 1
    tried = subprocess.run([*shlex.split(OWN_NETWORK), "-c", ""], capture_output=True, text=True)
    if tried.returncode:
        why = tried.stderr.strip().rpartition("\n")[2]
        print(f"one container at a time: this user may make no network ({why})", flush=True)
        return 1
    return most


@command("test")
def main(options: argparse.Namespace) -> int:
    cores = len(os.sched_getaffinity(0)) if find_spec("xdist") else 1
    in_containers = options.layer in ("container", None)
    at_once = containers_at_once(cores) if in_containers else 1
    wanted = runs(options.layer, options.model, cores, at_once)
    if options.layer != "unit":
        ensure_all([cards.load(options.model)] if options.model else cards.load_all())
    if in_containers:
        with contextlib.suppress(clients.ClientsError):  # the clients' tests report it
            clients.python(clients.TESTED)  # now, as those networks have no internet
    with tempfile.TemporaryDirectory() as folder:
        timings = Path(folder) / "timings.json"
        pytest = [sys.executable, "-m", "pytest", f"--timings={timings}"]
        codes = []
        for group in wanted:
            if len(group) > 1:
                print(f"{len(group)} runs at once: one is shown now, then the rest", flush=True)
            codes += run([[*pytest, *words] for words in group])
        if timings.exists():  # missing if no test was found
            subprocess.run([sys.executable, "-m", "tests.support.timing", timings], cwd=ROOT)
    return next(filter(None, codes), 0)


def run(commands: list[list[str]]) -> list[int]:
    """Runs pytest commands at once → their exit codes. The first one's output is shown live, the
    others' when they end. Ctrl-C also reaches pytest, which then ends its containers; this waits
    for that."""
    # With PYTHONDONTWRITEBYTECODE, each of some hundred processes would compile pytest, truss and
    # the tested code: 4 s for each that collects the unit tests.
    variables = {name: it for name, it in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    if len(commands) > 1 or "--dist=worksteal" in commands[0]:
        variables["OMP_NUM_THREADS"] = "1"  # each core has a process, and waiting threads spin
    with contextlib.ExitStack() as ended:
        outputs = [None, *(ended.enter_context(tempfile.TemporaryFile()) for _ in commands[1:])]
        started = []
        try:
            for command, output in zip(commands, outputs, strict=True):
                process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=output)
                started.append((process, output))
        finally:  # also on Ctrl-C before the last has started
            codes = [finish(*each) for each in started]
    if INTERRUPTED in codes:
        raise KeyboardInterrupt
    return codes


def finish(process: subprocess.Popen[bytes], output: IO[bytes] | None) -> int:
    """The exit code of a run; shows its output, unless it was shown live."""
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            code = process.wait()
            break
    if output:
        output.seek(0)
        shutil.copyfileobj(output, sys.stdout.buffer)
        sys.stdout.flush()
    return code


if __name__ == "__main__":
    sys.exit(main())
