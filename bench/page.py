"""docs/benchmarks.md, generated from text in bench/text/ and a JSON file of metrics for each part.

Promises: the same files give the same page; the {braces} in a part's text are filled from its
`values`. A part without metrics is left out.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from bench import overhead, plots, scaling, startup, stock
from bench.plots import Plot
from bench.session import Session
from deploy.paths import ROOT

NAME = "benchmarks.md"  # in the output folder; metrics and plots are in a subfolder of its name
TEXT = ROOT / "bench" / "text"
ROUGH = "**Rough figures of a quick run.** "


class Part(Protocol):
    """A module that measures something."""

    def measure(self, model: str | None, quick: bool, session: Session) -> dict[str, Any]:
        """Measures one model or the part's own → JSON-compatible data, rounds by group under
        "measured"."""

    def values(self, results: Mapping[str, Any]) -> dict[str, str]:
        """The values for the braces in the part's text."""

    def plots(self, results: Mapping[str, Any]) -> dict[str, Plot]:
        """Plots by file name."""


# by the name PART= takes, which is also the name of its files; in the order of the page
PARTS: dict[str, Part] = {
    "stock": stock,
    "overhead": overhead,
    "startup": startup,
    "scaling": scaling,
}


def filled(text: str, values: Mapping[str, str]) -> str:
    """The text with its {names} replaced; a `KeyError` for one without a value."""
    return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], text)


def provenance(results: Mapping[str, Any]) -> str:
    rough = ROUGH if results.get("quick") else ""
    counts = sorted({len(rounds) for rounds in results["measured"].values()})
    rounds = f"{' to '.join(map(str, counts))} round{'' if counts == [1] else 's'}"
    load = results.get("load", 0)
    beside = f"; other work ran beside it, load average {load}" if load > 0.5 else ""
    return (
        f"<sub>{rough}{rounds}; {results['machine']}; {results['versions']}; vLLM on the CPU, "
        f"stand-ins for the weights; commit {results['commit']}, {results['date']}{beside}</sub>"
    )


def page(folder: Path) -> str:
    """The page of the metrics in `folder`."""
    sections = []
    for name, part in PARTS.items():
        if (folder / f"{name}.json").exists():
            results = json.loads((folder / f"{name}.json").read_text("utf-8"))
            values = {"provenance": provenance(results), **part.values(results)}
            sections.append(filled((TEXT / f"{name}.md").read_text("utf-8"), values))
    sections += [(TEXT / f"{name}.md").read_text("utf-8") for name in ("deployment", "history")]
    head = filled((TEXT / "head.md").read_text("utf-8"), {"contents": contents(sections)})
    return "\n".join(section.rstrip("\n") + "\n" for section in [head, *sections])


def contents(sections: Sequence[str]) -> str:
    """Links to the sections, by their headings."""
    headings = [section.partition("\n")[0].removeprefix("## ") for section in sections]
    anchors = [re.sub(r"[^\w -]", "", it.lower()).replace(" ", "-") for it in headings]
    pairs = enumerate(zip(headings, anchors, strict=True), 1)
    return "\n".join(f"{number}. [{it}](#{anchor})" for number, (it, anchor) in pairs)


def write_results(to: Path, name: str, results: Mapping[str, Any]) -> None:
    """A part's metrics as JSON, one round a line."""
    lines = [
        f"{json.dumps(key)}: {json.dumps(value)}"
        for key, value in results.items()
        if key != "measured"
    ]
    for group, rounds in results.get("measured", {}).items():
        each = ",\n  ".join(json.dumps(rounded(done)) for done in rounds)
        lines.append(f"{json.dumps(group)}: [\n  {each}\n ]")
    split = len(results) - ("measured" in results)
    body = ",\n ".join(lines[:split])
    if "measured" in results:
        body += ',\n "measured": {\n ' + ",\n ".join(lines[split:]) + "\n }"
    (to / plots.FOLDER).mkdir(exist_ok=True)
    (to / plots.FOLDER / f"{name}.json").write_text("{" + body + "\n}\n", "utf-8")


def rounded(value: Any) -> Any:
    """Rounds numbers to five digits, more than they are accurate to."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


def write(to: Path) -> None:
    """Writes the page and plots of the existing metrics."""
    folder = to / plots.FOLDER
    for name, part in PARTS.items():
        if (folder / f"{name}.json").exists():
            results = json.loads((folder / f"{name}.json").read_text("utf-8"))
            for file, plot in part.plots(results).items():
                plots.draw(plot, folder / file)
    (to / NAME).write_text(page(folder), "utf-8")
