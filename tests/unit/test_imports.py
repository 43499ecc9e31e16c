"""Imports go one way: scripts → bench → local → deploy; packages/predict imports none of them. Unit
tests import vLLM and torch where these are the subject."""

import ast
import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from deploy.paths import ROOT

# folder → the folders of this repository that its modules may import from
MAY_IMPORT = {
    "packages": {"predict"},
    "deploy": {"deploy"},
    "local": {"local", "deploy"},
    "bench": {"bench", "local", "deploy", "predict"},
    "scripts": {"scripts", "bench", "local", "deploy", "predict"},
    "tests/support": {"support", "bench", "local", "deploy", "predict"},
}
OURS = {"scripts", "bench", "local", "deploy", "predict", "tests"}

SLOW = {"vllm", "torch", "transformers", "xgrammar"}  # to import, seconds


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def names(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """What import statements name."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def imported(path: Path) -> frozenset[str]:
    """The modules that a file imports, wherever in it, by their full names."""
    return frozenset(names(ast.walk(parsed(path))))


@functools.cache
def imported_at_once(path: Path) -> frozenset[str]:
    """What is imported when the file is: not by its functions, nor for types alone, which are the
    only things that are imported under an `if`."""
    found = set(names(parsed(path).body))
    for node in parsed(path).body:
        if isinstance(node, ast.Assign):  # … = pytest.importorskip("vllm.exceptions")
            found.update(re.findall(r"importorskip\('([\w.]+)'\)", ast.unparse(node)))
    return frozenset(found)


@functools.cache
def files_of(module: str) -> frozenset[Path]:
    """Our files that are run when a module, or a name of one, is imported."""
    if module.split(".")[0] not in OURS:
        return frozenset()
    words = module.split(".")
    places = [
        folder.joinpath(*words[:end])
        for folder in (ROOT, ROOT / "packages")
        for end in range(1, len(words) + 1)
    ]
    files = [file for it in places for file in (it / "__init__.py", it.with_suffix(".py"))]
    return frozenset(file for file in files if file.is_file())


def slow_imports(path: Path, seen: set[Path]) -> set[str]:
    """What of SLOW is imported with a file, by it or by those of ours that it imports."""
    found: set[str] = set()
    for module in imported_at_once(path):
        found |= {module.split(".")[0]} & SLOW
        for file in files_of(module) - seen:
            seen.add(file)
            found |= slow_imports(file, seen)
    return found


def folder_of(module: str) -> str | None:
    """Which of our folders a module is in; None for other people's."""
    first, *rest = module.split(".")
    if first not in OURS:
        return None
    return rest[0] if first == "tests" and rest else first


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_go_one_way(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*.py")):
        wrong = {name for name in imported(path) if folder_of(name)} - {
            name for name in imported(path) if folder_of(name) in MAY_IMPORT[folder]
        }
        assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


def test_no_test_imports_a_test() -> None:
    for path in sorted((ROOT / "tests").rglob("*.py")):
        layers = {name for name in imported(path) if folder_of(name) not in (None, "support")}
        wrong = {name for name in layers if name.startswith("tests.")}
        assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


def test_no_unit_test_outside_with_vllm_imports_vllm_or_torch_to_be_collected() -> None:
    unit = ROOT / "tests" / "unit"
    slow = [path.name for path in unit.glob("*.py") if slow_imports(path, {path})]
    assert not slow, f"{', '.join(slow)}: into tests/unit/with_vllm"


# What runs before there is an environment, by what a machine has as python3.
AT_FIRST = {"scripts/command.py", "scripts/options.py", "scripts/setup.py", "local/machine.py"}
AT_FIRST |= {"deploy/errors.py", "deploy/paths.py", "deploy/__init__.py", "scripts/__init__.py"}


@pytest.mark.parametrize("pattern", ["deploy/**/*.py", "scripts/*.py", "local/*.py"])
def test_what_deploys_is_written_for_the_oldest_python_it_runs_on(pattern: str) -> None:
    paths = list(ROOT.glob(pattern))
    assert paths
    for path in paths:
        oldest = (3, 9) if str(path.relative_to(ROOT)) in AT_FIRST else (3, 10)
        ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=oldest)
