"""What is added to the engine's own loop, where an error would end the engine for everybody.

Promises: after the first error nothing more of it is done, and the log says so once.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from predict.vllm_internals import LOGGER

log = logging.getLogger(LOGGER)


class Guarded(Protocol):
    failed: bool


def guarded(
    state: Guarded, lost: str, do: Callable[..., Any], arguments: Sequence[Any], otherwise: Any
) -> Any:
    """What `do` returns, or `otherwise` once it has `failed`; `lost`: what the log says then."""
    if state.failed:
        return otherwise
    try:
        return do(*arguments)
    except Exception as error:
        state.failed = True
        log.error("%s: %s", lost, type(error).__name__)
        return otherwise
