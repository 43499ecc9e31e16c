"""The process that tries constraints, with a judge that is ready at once: xgrammar takes 2 s to
import, and tests of the process start many. Forks, limits and log lines are the real ones."""

import sys
from types import ModuleType
from typing import Any

from predict.constraints import process
from predict.constraints.trial import TrialError

HEAVY = "(.{0,300}.{0,300}){0,300}"
IMPOSSIBLE = ("(?<=a)b", "(?<=b)a")


class Judge:
    mask_seconds = 0.0

    def __init__(self, setup: dict[str, Any]) -> None:
        pass

    def __call__(self, kind: str, text: str, has_read: object) -> None:
        if text in IMPOSSIBLE:
            raise TrialError("cannot be followed")
        while text.startswith(HEAVY):
            pass

    def prepare(self, schema: object) -> None:
        pass


if __name__ == "__main__":
    sys.modules["xgrammar"] = ModuleType("xgrammar")
    vars(process)["Trial"] = Judge
    process.main()
