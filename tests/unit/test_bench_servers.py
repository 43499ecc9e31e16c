"""A benchmark that is killed leaves no server behind."""

import os
import select
import subprocess
import sys
from pathlib import Path

from deploy.paths import ROOT

BENCH = """
import os, sys
from pathlib import Path
from bench import servers
servers.sandbox.VENV = Path(sys.argv[1])
with servers._vllm(Path("checkpoint"), [], {"PATH": os.environ["PATH"]}) as log:
    log.read()
"""


def test_bare_vllm_ends_with_the_benchmark(tmp_path: Path) -> None:
    alive, program = tmp_path / "alive", tmp_path / "bin" / "vllm"
    os.mkfifo(alive)
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nexec 3>{alive}; echo begun >&3; exec sleep 600\n")
    program.chmod(0o755)
    heard = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "packages")}
    bench = subprocess.Popen([sys.executable, "-c", BENCH, tmp_path], cwd=ROOT, env=variables)
    try:
        for said in (b"begun\n", b""):  # nothing: whoever could write to it has ended
            assert select.select([heard], [], [], 60)[0]
            assert os.read(heard, 100) == said
            bench.kill()
    finally:
        bench.kill()
        bench.wait()
        os.close(heard)
