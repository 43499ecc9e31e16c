"""Imports go one way: scripts → bench → local → deploy; packages/predict imports none of them."""

import ast
import functools
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


@functools.cache
def imported(path: Path) -> frozenset[str]:
    """The modules that a file imports, wherever in it, by their full names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


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


def test_nobody_imports_a_command_and_no_test_imports_a_test() -> None:
    for path in sorted((ROOT / "tests").rglob("*.py")):
        layers = {name for name in imported(path) if folder_of(name) not in (None, "support")}
        wrong = {name for name in layers if name.startswith("tests.")}
        assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"
