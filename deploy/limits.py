"""The middleware's settings that config.yaml may contain: limits of requests, and others.

Promises: LIMITS has the `default` and `description` of each limit; SETTINGS has every variable that
packages/predict/settings.py reads, with the values it takes unless it is empty: a `kind` and
`bounds` of deploy/values.py, or any text. IMAGES has the same for packages/predict/images.
"""

from typing import Any

import yaml

from deploy.paths import ROOT
from deploy.values import Row

LIMITS: dict[str, dict[str, Any]] = yaml.safe_load(
    (ROOT / "packages" / "predict" / "limits.yaml").read_text(encoding="utf-8")
)
ABOVE_NOTHING = {"bounds": {"ge": 0}}
INTEGER: Row = {"kind": "integer", **ABOVE_NOTHING}
NUMBER: Row = {"kind": "number", **ABOVE_NOTHING}
TEXT: Row = {}
# What vLLM's engine has room for on a GPU; a single request with more would crash it.
ROOM: dict[str, Row] = {
    name: {"kind": "integer", "bounds": {"ge": 0, "le": LIMITS[name]["default"]}}
    for name in ("token_ids", "stop_tokens", "bad_words", "bad_words_bytes")
}
SETTINGS: dict[str, Row] = {
    **{f"PREDICT_LIMIT_{name.upper()}": ROOM.get(name, INTEGER) for name in LIMITS},
    "PREDICT_ADAPTERS": TEXT,
    "PREDICT_DEFAULTS_FOR_MESSAGES": INTEGER,
    "PREDICT_MAX_NEW_TOKENS": INTEGER,
    "PREDICT_MAX_NEW_TOKENS_LIMIT": INTEGER,
    "PREDICT_MOST_REQUESTS": INTEGER,
    "PREDICT_STALL_SECONDS": NUMBER,
    "PREDICT_STREAM_INTERVAL": INTEGER,
    "PREDICT_TEMPERATURE": NUMBER,
    "PREDICT_TOKENIZER": TEXT,
    "PREDICT_TOP_K": {"kind": "integer", "bounds": {"ge": -1}},  # -1: all tokens, as in vLLM
    "PREDICT_TOP_P": NUMBER,
}
IMAGES: dict[str, Row] = {
    "ALLOWED_IMAGE_ADDRESSES": {"kind": "networks"},
    "ALLOWED_IMAGE_FORMATS": TEXT,  # the start checks that Pillow and vLLM can read them
    "ALLOWED_IMAGE_HOSTS": TEXT,
    "ALLOWED_IMAGE_PORTS": {"kind": "ports"},
}
