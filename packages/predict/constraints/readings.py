"""Has vLLM read each constraint once, and only after its trial.

vLLM reads a constraint in the API server's event loop, for each prompt of each request: up to 20 ms
in which no other request is served.

Promises: what was read without an error is not read again. vLLM reads a structural tag with the
request's other fields, before the trial; here it is tried first, like every other constraint. What
vLLM imports for its first constraint is imported before clients connect. Errors stay vLLM's. A vLLM
without these functions is left unchanged.
"""

import contextlib
import functools
import hashlib
import importlib
import json
from collections.abc import Callable
from typing import Any

import msgspec

from predict.constraints.recent import Recent

MOST_KEPT = 1000
# For the first constraint vLLM imports all backends, whichever it then uses: 0.1 s.
BACKENDS = ("guidance", "lm_format_enforcer", "outlines", "xgrammar")


def once(validate: Callable[[Any], None]) -> Callable[[Any], None]:
    """`validate_xgrammar_grammar(sampling_params)`, not called again for what it has accepted."""
    good: Recent[None] = Recent(MOST_KEPT)

    @functools.wraps(validate)
    def validated(params: Any) -> None:
        found = params.structured_outputs
        if found is None or found.choice:  # vLLM turns a choice into a grammar here
            validate(params)
            return
        parts = [found.regex, found.json, found.grammar, found.structural_tag]
        try:
            key = hashlib.sha256(msgspec.json.encode(parts)).digest()
        except (TypeError, ValueError):
            validate(params)
            return
        if key not in good:
            validate(params)
            good[key] = None

    return validated


def later(validate: Callable[..., None]) -> Callable[..., None]:
    """`validate_structural_tag_payload(payload, parameter=…)`, without what the process of
    verdicts.py tries."""

    @functools.wraps(validate)
    def validated(payload: Any, **named: Any) -> None:
        try:
            tag = json.loads(payload)
        except (TypeError, ValueError, RecursionError):
            tag = None
        if not isinstance(tag, dict):
            validate(payload, **named)

    return validated


def install() -> None:
    for name in BACKENDS:
        with contextlib.suppress(ImportError):
            importlib.import_module(f"vllm.v1.structured_output.backend_{name}")
    from vllm.entrypoints.generate.base import protocol
    from vllm.v1.structured_output import backend_xgrammar

    for module, name, better in (
        (backend_xgrammar, "validate_xgrammar_grammar", once),
        (protocol, "validate_structural_tag_payload", later),
    ):
        if hasattr(module, name):
            setattr(module, name, better(getattr(module, name)))
