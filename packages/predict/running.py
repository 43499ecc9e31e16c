"""What this project adds to /metrics: what runs, which `make smoke` compares with the plan, and the
memory that requests take.

Promises: the labels of `predict:config_info` are what vLLM made of its flags, and the GPU it found;
vLLM's own `vllm:cache_config_info` has the KV cache. `predict:request_memory_bytes` is what bodies
and images now take of the limit `image_memory_bytes`. A label that cannot be read is empty: nothing
here keeps the server from starting.
"""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client import Gauge

from predict.vllm_internals import LOGGER

METRIC = "predict:config_info"
MEMORY = "predict:request_memory_bytes"
DRIVER = Path("/proc/driver/nvidia/version")

log = logging.getLogger(LOGGER)


def labels(state: Any) -> dict[str, str]:
    """The labels, from vLLM's `app.state`."""
    from vllm import __version__
    from vllm.platforms import current_platform

    config, args = state.vllm_config, state.args
    found: dict[str, Callable[[], Any]] = {
        "version": lambda: __version__,
        "device": current_platform.get_device_name,
        "device_memory": current_platform.get_device_total_memory,
        "driver": lambda: (re.findall(r"\d{3,}\.[\d.]+", DRIVER.read_text()) or [""])[0],
        "gpus": lambda: config.parallel_config.world_size,
        "dtype": lambda: str(config.model_config.dtype).removeprefix("torch."),
        "quantization": lambda: config.model_config.quantization or "none",
        "max_model_len": lambda: config.model_config.max_model_len,
        "max_num_seqs": lambda: config.scheduler_config.max_num_seqs,
        "max_num_queued_reqs": lambda: args.max_num_queued_reqs,
        "tools": lambda: args.tool_call_parser if args.enable_auto_tool_choice else "none",
    }
    return {name: _text(read) for name, read in found.items()}


def publish(state: Any) -> None:
    """Adds the metric to vLLM's."""
    try:
        found = labels(state)
        Gauge(METRIC, "What this server was made of", list(found)).labels(**found).set(1)
    except Exception as error:
        log.warning("%s: no metric %s", type(error).__name__, METRIC)


def publish_memory(taken: Callable[[], int]) -> None:
    """Adds the memory taken, read at each scrape."""
    try:
        Gauge(MEMORY, "What bodies and images of requests take now").set_function(taken)
    except Exception as error:
        log.warning("%s: no metric %s", type(error).__name__, MEMORY)


def _text(read: Callable[[], Any]) -> str:
    try:
        return str(read())
    except Exception:  # another version of vLLM, or no driver: the rest is still worth showing
        return ""
