"""What this package relies on that vLLM does not promise is in the installed vLLM.

A failure here, after a move to another vLLM, names what is gone and what relied on it: read the
vLLM module beside it, then change packages/predict/vllm_internals.py and the module it names.
"""

import ast
import importlib
import importlib.util
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from predict import vllm_internals
from predict.vllm_internals import (
    BATCH_LOGGER,
    CHAT_RENDERER,
    GIVEN_UP,
    NAMES,
    PROGRESS,
    QUOTING_LOGGERS,
    RENDERER_TEXTS,
    REQUEST_READERS,
    SCHEDULER_TEXTS,
)

from deploy.paths import ROOT

# Texts of vLLM that are recognized, and the module that writes them.
TEXTS = [
    (f'GenerationError("{GIVEN_UP}")', "vllm.entrypoints.generate.base.serving"),
    ('wrap_data_with_event(data, "error")', "vllm.entrypoints.anthropic.serving"),
    ('"message_start"', "vllm.entrypoints.anthropic.serving"),
    ("response.created", "vllm.entrypoints.openai.responses.serving"),
    ("response.in_progress", "vllm.entrypoints.openai.responses.serving"),
    *((name.removesuffix("_total"), "vllm.v1.metrics.loggers") for name in PROGRESS),
    (CHAT_RENDERER, "vllm.renderers.mistral"),
    *((text, "vllm.renderers.base") for text in RENDERER_TEXTS),
    *((text, "vllm.v1.core.sched.scheduler") for text in SCHEDULER_TEXTS),
    ("self.fill_bitmask_parallel_threshold", "vllm.v1.structured_output"),
    ("total_num_scheduled_tokens: int", "vllm.v1.core.sched.output"),
    ("extra_args: dict[str, Any] | None", "vllm.sampling_params"),
]


def vllm_imports() -> Iterator[str]:
    """Every name of vLLM that packages/predict imports, as NAMES writes them."""
    for path in sorted((ROOT / "packages" / "predict").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vllm":
                yield from (f"{node.module}:{name.name}" for name in node.names)
            elif isinstance(node, ast.Import):
                for name in node.names:
                    parent, _, last = name.name.rpartition(".")
                    if name.name.split(".")[0] == "vllm":
                        yield f"{parent}:{last}"


def found(name: str) -> Any:
    module, _, attributes = name.partition(":")
    value: Any = importlib.import_module(module)
    for attribute in attributes.split("."):
        if not hasattr(value, attribute) and inspect.ismodule(value):
            return importlib.import_module(f"{value.__name__}.{attribute}")
        value = getattr(value, attribute)
    return value


@pytest.mark.parametrize("name", NAMES)
def test_every_name_we_use_is_there(name: str) -> None:
    try:
        found(name)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"vLLM has no {name} any more ({error}); {NAMES[name]}")


def test_every_import_of_vllm_is_listed() -> None:
    listed = [f"{name.replace(':', '.')}." for name in NAMES]
    for name in vllm_imports():
        if name == "vllm:__version__":
            continue
        assert any(f"{name.replace(':', '.')}." in start for start in listed), name


@pytest.mark.parametrize("module", sorted({*REQUEST_READERS, *QUOTING_LOGGERS, BATCH_LOGGER}))
def test_every_module_we_tell_apart_is_there(module: str) -> None:
    assert importlib.util.find_spec(module), f"vLLM has no {module} any more: errors/, logs.py"


@pytest.mark.parametrize(("text", "module"), TEXTS)
def test_every_text_we_recognize_is_written(text: str, module: str) -> None:
    path = Path(str(importlib.import_module(module).__file__))
    assert text in path.read_text(encoding="utf-8"), (
        f"{module} writes {text!r} no longer: see who uses it in vllm_internals.py"
    )


def test_nothing_here_imports_vllm() -> None:
    """`make docs` and the commands of deploying read this package without vLLM."""
    assert "import vllm" not in inspect.getsource(vllm_internals)
