"""The middleware's settings as config.yaml may give them: limits of requests, and the others.

Promises: LIMITS has each with its `default` and `description`; SETTINGS has every variable that
packages/predict/settings.py reads.
"""

from typing import Any

import yaml

from deploy.paths import ROOT

LIMITS: dict[str, dict[str, Any]] = yaml.safe_load(
    (ROOT / "packages" / "predict" / "limits.yaml").read_text(encoding="utf-8")
)
SETTINGS = [f"PREDICT_LIMIT_{name.upper()}" for name in LIMITS] + [
    "PREDICT_ADAPTERS",
    "PREDICT_DEFAULTS_FOR_MESSAGES",
    "PREDICT_MAX_NEW_TOKENS",
    "PREDICT_MAX_NEW_TOKENS_LIMIT",
    "PREDICT_MOST_REQUESTS",
    "PREDICT_STALL_SECONDS",
    "PREDICT_STREAM_INTERVAL",
    "PREDICT_TEMPERATURE",
    "PREDICT_TOKENIZER",
    "PREDICT_TOP_K",
    "PREDICT_TOP_P",
]
