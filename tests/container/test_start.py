"""The measures that shorten the start take effect: vLLM's log, and the contents of its cache."""

from pathlib import Path

from local.processes import vllm_processes
from tests.support.container import Running


def test_nothing_is_tried_twice_with_a_pause_between(container: Running) -> None:
    assert "retrying" not in container.log.read_text()


def test_vllm_did_not_look_at_the_models_class_itself(container: Running) -> None:
    """Otherwise it would have rewritten its cache: the files are as prepare.sh put them there."""
    root = Path(f"/proc/{vllm_processes()[0]}/root")
    cached = root / "home" / "app" / ".cache" / "vllm" / "modelinfos"
    found = [f"{path.stem} {path.read_text()}" for path in sorted(cached.iterdir())]
    assert "".join(found) == (root / "packages" / "start" / "modelinfos").read_text()
