"""The older ways are Trusses that Truss's own builder takes."""

from pathlib import Path

import pytest
import yaml

from bench import peer
from bench.older import ASYNC_LLM, GENERATE
from bench.peer import Peer


@pytest.mark.parametrize(("of", "concurrency"), [(ASYNC_LLM, 128), (GENERATE, 1)])
def test_a_peer_is_laid_out_as_its_image_with_the_concurrency_it_had(
    of: Peer, concurrency: int, tmp_path: Path
) -> None:
    app = tmp_path / "app"
    peer.lay_out(peer.FOLDER / of.folder, app)
    assert (app / "main.py").read_text().count("TrussServer") > 0
    assert (app / "model" / "model.py").is_file()
    config = yaml.safe_load((app / "config.yaml").read_text())
    assert config["runtime"]["predict_concurrency"] == concurrency
