"""The container is what was pushed, and the commands for a deployment work against it."""

from pathlib import Path

import httpx
import pytest
import yaml

from tests.container.running import Running, vllm_processes
from tests.platform.baseten import Baseten
from tests.platform.user import User

mistral = pytest.mark.parametrize("container", ["mistral-7b"], indirect=True)


@mistral
def test_the_container_holds_what_was_uploaded(container: Running) -> None:
    (vllm,) = vllm_processes()
    root = Path(f"/proc/{vllm}/root")
    uploaded = container.deployment.files()
    config = yaml.safe_load(uploaded.pop("config.yaml"))
    inside = {
        str(path.relative_to(root)): path.read_bytes()
        for path in (root / "packages").rglob("*")
        if path.is_file()
    }
    assert inside == uploaded
    running = yaml.safe_load((root / "app" / "config.yaml").read_text())
    assert running["docker_server"] == config["docker_server"]
    assert config["model_name"] == container.card.title


def smoke(user: User, *choices: str) -> list[str]:
    """The names of the checks that passed, all of them."""
    done = user.make("smoke", *choices)
    assert done.returncode == 0, done.stdout + done.stderr
    assert user.baseten.key not in done.stdout + done.stderr
    rows = [[cell.strip() for cell in line.split("│")] for line in done.stdout.splitlines()]
    passed = [row[1] for row in rows if len(row) == 7 and row[2] == "pass"]
    assert f"all {len(passed)} checks passed" in done.stdout
    return passed


def test_smoke_passes_through_the_platform(container: Running, user: User) -> None:
    deployment = container.deployment
    base = user.baseten.host(deployment.model)
    passed = smoke(user, f"MODEL_ID={deployment.model.id}", f"BASE_URL={base}")
    assert ("image" in passed) == (container.card.features.images > 0)
    assert {"chat", "stream", "prompt", "max_new_tokens", "text stream"} <= set(passed)


@mistral
def test_smoke_passes_on_a_container_by_itself(container: Running, user: User) -> None:
    assert "error's shape" in smoke(user, "BASE_URL=http://127.0.0.1:8080/")


@mistral
def test_vllm_s_metrics_are_reached_through_the_platform(
    container: Running, baseten: Baseten
) -> None:
    url = f"{baseten.host(container.deployment.model)}/environments/production/sync/metrics"
    headers = {"Authorization": f"Api-Key {baseten.key}"}
    response = httpx.get(url, headers=headers, trust_env=False)
    assert response.status_code == 200
    for name in ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage"):
        assert name in response.text
