"""The container is what was pushed, and the commands for a deployment work with it."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.config import vllm_version
from local.processes import vllm_processes
from tests.support import operations
from tests.support.container import Running
from tests.support.user import User

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
        if path.is_file() and path.suffix != ".pyc"  # Python writes these when it runs
    }
    assert inside == uploaded
    running = yaml.safe_load((root / "app" / "config.yaml").read_text())
    for names in (["model_name"], ["docker_server", "start_command"], ["environment_variables"]):
        assert at(running, names) == at(config, names)


def at(config: Any, names: list[str]) -> Any:
    return config if not names else at(config[names[0]], names[1:])


def smoke(user: User, model: str, *choices: str) -> tuple[list[str], str]:
    """The names of the checks, all of which passed, and all that was printed."""
    written = user.make("config", f"MODEL={model}", "FORCE=1")  # smoke compares it with what runs
    assert written.returncode == 0, written.stderr
    done = user.make("smoke", *choices)
    assert done.returncode == 0, done.stdout + done.stderr
    assert user.baseten.key not in done.stdout + done.stderr
    rows = [[cell.strip() for cell in line.split("│")] for line in done.stdout.splitlines()]
    passed = [row[1] for row in rows if len(row) == 7 and row[2] == "pass"]
    assert f"all {len(passed)} checks passed" in done.stdout
    first_token = {row[1]: row[4] for row in rows if len(row) == 7 and row[4].isdecimal()}
    assert set(first_token) == {"stream", "text stream"}
    return passed, done.stdout


def test_smoke_passes_through_the_platform(container: Running, user: User) -> None:
    deployment = container.deployment
    base = user.baseten.host(deployment.model)
    passed, _ = smoke(
        user, container.card.name, f"MODEL_ID={deployment.model.id}", f"BASE_URL={base}"
    )
    assert ("image" in passed) == (container.card.features.images > 0)
    assert {"chat", "stream", "prompt", "max_new_tokens", "text stream"} <= set(passed)


@mistral
def test_the_metrics_that_the_documentation_names_are_there(container: Running, user: User) -> None:
    got = operations.run(user, container.deployment, operations.line_with("/metrics"))
    names = re.findall(r"`(vllm:\w+)`", operations.PAGE)
    assert len(names) >= 8
    assert [name for name in names if f"\n{name}" not in got] == []


@mistral
def test_deploy_pushes_waits_sets_autoscaling_and_checks(container: Running, user: User) -> None:
    baseten = user.baseten
    baseten.statuses.append("BUILDING")
    report = user.home / "report.md"
    done = user.make(
        "deploy",
        "MODEL=mistral-7b",
        "TITLE=Mistral 7B, deployed",  # keeps the production model that other tests use
        "FORCE=1",
        f"MANAGEMENT_URL={baseten.url}",
        f"BASE_URL={baseten.url}/model-MODEL_ID",
        f"REPORT={report}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert baseten.key not in done.stdout + done.stderr
    model = baseten.newest.model
    production = model.environments["production"]
    assert production.deployment is baseten.newest
    assert production.settings["target_utilization_percentage"] == 50
    said = [line for line in done.stdout.splitlines() if line.startswith("[deploy]")]
    first = "[deploy] 1 of 4: push to production: Mistral 7B, deployed on A10G:1, "
    assert said[0].startswith(first)
    assert "[deploy] BUILDING, after 0 min" in said
    assert f"model-{model.id}.api.baseten.co/environments/production/sync/v1" in said[-1]
    assert "| vLLM | 0." in report.read_text()


@mistral
def test_smoke_passes_on_a_container_and_shows_what_was_planned_beside_what_runs(
    container: Running, user: User
) -> None:
    passed, said = smoke(user, "mistral-7b", "BASE_URL=http://127.0.0.1:8080/")
    assert "error's shape" in passed
    found = [[cell.strip() for cell in line.split("│")] for line in said.splitlines()]
    rows = {row[1]: row[2:5] for row in found if len(row) == 6 and row[1]}
    version = vllm_version()
    assert rows["vLLM"] == [version, version, "agrees"]
    assert rows["context, tokens"] == ["32768", "32768", "agrees"]
    assert rows["batched requests"][2] == rows["tools"][2] == rows["adapters"][2] == "agrees"
    assert rows["precision"] == ["fp16: float16, not quantized", "float16, not quantized", "agrees"]
    assert rows["hardware"][2].startswith("not compared: a run on a CPU")
    assert rows["KV cache, tokens"][2].startswith("not compared: on a CPU")
    assert "planned: Mistral 7B in fp16 fits on 1×A10G" in " ".join(said.split())
    other = user.make("smoke", "BASE_URL=http://127.0.0.1:8080", "GPU=L4", "CONTEXT=4096")
    assert other.returncode != 0
    assert "make smoke: not what was planned: context, tokens" in other.stdout
