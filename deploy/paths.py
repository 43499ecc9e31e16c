"""Where this repository lies on disk."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "config.yaml"  # the file that is pushed
MODEL_INFOS = ROOT / "packages" / "start" / "modelinfos"  # written by `make modelinfos`
