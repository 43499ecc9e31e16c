"""The CPU's engine keeps the memory of a step, though freed images go back to the system."""

import os
import subprocess
import sys

from deploy.paths import ROOT

STEPS = 50
PAGES = 1000  # at least, of a step's block

# Prints the page faults of STEPS steps, each with a block of 4 MiB.
PROGRAM = f"""
import resource, sys, types

class CPUWorker:
    def init_device(self):
        pass

module = types.ModuleType("vllm.v1.worker.cpu_worker")
module.CPUWorker = CPUWorker
for name in ("vllm", "vllm.v1", "vllm.v1.worker"):
    sys.modules[name] = types.ModuleType(name)
sys.modules[module.__name__] = module
if sys.argv[1:]:
    import cpu_memory
    cpu_memory.register()
CPUWorker().init_device()
bytearray(4 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({STEPS}):
    bytearray(4 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(*words: str) -> int:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "local" / "cpu"),
        "MALLOC_MMAP_THRESHOLD_": str(128 << 10),  # as deploy/variables.py sets it for images
    }
    command = [sys.executable, "-c", PROGRAM, *words]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout)


def test_a_step_s_memory_is_that_of_the_step_before() -> None:
    assert page_faults("kept") < PAGES
    assert page_faults() > STEPS * PAGES  # what it is for
