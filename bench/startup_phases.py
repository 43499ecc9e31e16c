"""Where the time of a start goes, by the lines that supervisord and vLLM log as they go.

Promises: pure; the phases of a start follow each other without a gap and add up to the whole. A
phase ends when its line arrives; what other processes do meanwhile counts to the phase it falls in.
Refuses a log without one of the lines: vLLM would have changed what it says.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from bench.errors import BenchError


@dataclass(frozen=True)
class Phase:
    """A phase, and what the log's line says that ends it."""

    name: str
    ends_with: str


PHASES = [
    Phase("sandbox, supervisord", "spawned: 'model-server'"),
    Phase("API server: interpreter, imports", "non-default args:"),
    Phase("configuration, what the model's class can do", "Resolved architecture:"),
    Phase("engine process: interpreter, imports", "Initializing a V1 LLM engine"),
    Phase("worker, distributed set-up", "Starting to load model"),
    Phase("weights", "Loading weights took"),
    Phase("weights laid out, memory profiled", "KV cache size:"),
    Phase("KV cache, warm-up", "init engine (profile, create kv cache, warmup model) took"),
    Phase("engine reports, API server's routes and tokenizer", "Application startup complete."),
]
ANSWER = "first answer"

Log = list[tuple[float, str]]  # when a line arrived, in seconds since the start, and the line


def phases(log: Iterable[tuple[float, str]], answered: float) -> dict[str, float]:
    """The length in s of each phase of a container's start, in order; the last is the answer's."""
    lines = iter(log)
    lengths, begun = {}, 0.0
    for phase in PHASES:
        ended = next((at for at, line in lines if phase.ends_with in line), None)
        if ended is None:
            raise BenchError(
                f"the log has no line with {phase.ends_with!r} where phase {phase.name!r} should "
                "end; mend bench/startup_phases.py"
            )
        lengths[phase.name] = ended - begun
        begun = ended
    return {**lengths, ANSWER: answered - begun}
