"""What a push would upload, by Truss's own reading of .truss_ignore."""

from truss.util.path import (
    get_unignored_relative_paths_from_root,
    load_trussignore_patterns_from_truss_dir,
)

from scripts.cards import ROOT

MODULES = ["__init__", "answers", "asgi", "dialects", "hub_token", "instruct", "middleware"]
MODULES += ["parameters", "settings", "takes", "tool_parser"]
PACKAGE = {f"packages/predict/{module}.py" for module in MODULES}
NEEDED = {"config.yaml", "packages/predict/parameters.yaml", *PACKAGE}


def test_only_what_the_container_needs_is_pushed() -> None:
    patterns = load_trussignore_patterns_from_truss_dir(ROOT)
    found = get_unignored_relative_paths_from_root(ROOT, patterns)
    assert {str(path) for path in found if (ROOT / path).is_file()} == NEEDED
