"""What a push uploads, by the real `truss push`: what the container needs, and no secret."""

import json
import re
from collections.abc import Callable

import httpx
import pytest

from deploy import cards
from deploy.paths import MODEL_INFOS, ROOT
from tests.support.baseten import Baseten, Deployment
from tests.support.user import User

LARGEST = 750 * 1024  # bytes of a tar that truss does not compress, with 1.5 KiB a file beside it

# Made up, and put together here so that no scanner takes this file for a leak
TOKENS = {
    "a Hugging Face token": "hf_" + "aBcDeFgHiJ" * 3 + "kLmN",
    "a Baseten key": "kJ8mPq2X." + "vR5tYw7ZbN3cLd9FgH1sKx4QjM6nTe0A",
    "a hex key": "9f86d081884c7d659a2f" + "eaa0c55ad015a3bf4f1b",
    "a base64 key": "q83vEjRWeJq83vEjRW" + "eJq83vEjRWeJ/+q83vEg==",
    "an AWS key": "AKIA" + "Q7ZL3M5N8P2R4T6V",
    "an OpenAI key": "sk-" + "proj-8sJd72kLmPq0XvB3nYtRw5",
    "a private key": "-----BEGIN " + "PRIVATE KEY-----",
    "a password": 'password = "' + 'correct-horse-battery"',
}

KNOWN_SHAPES = [
    r"hf_[A-Za-z0-9]{20,}",
    r"\bAKIA[A-Z0-9]{16}\b",
    r"\bsk-[A-Za-z0-9_-]{16,}",
    r"-----BEGIN [A-Z ]*PRIVATE KEY",
    r"""(?i)\b(?:password|passwd|api_?key|secret|token)["']?\s*[:=]\s*["'][^"'\s{}/]{8,}["']""",
]


def secrets_in(text: str, known: set[str]) -> list[str]:
    """What looks like a secret and is not in `known`: its shape, or a long word like a key."""
    found = [match.group() for shape in KNOWN_SHAPES for match in re.finditer(shape, text)]
    words = re.findall(r"[A-Za-z0-9+/=]{24,}", text)
    return found + [word for word in words if word not in known and _is_like_a_key(word)]


def _is_like_a_key(word: str) -> bool:
    """Hexadecimal, or base64 with both cases and digits; paths and names lack one of these."""
    if re.fullmatch(r"[0-9a-f]+|[0-9A-F]+", word):
        return True
    return all(re.search(kind, word) for kind in ("[a-z]", "[A-Z]", "[0-9].*[0-9]"))


@pytest.fixture(params=cards.names())
def uploaded(request: pytest.FixtureRequest, pushed: Callable[[str], Deployment]) -> Deployment:
    return pushed(request.param)


def test_only_what_the_container_needs_is_uploaded(uploaded: Deployment, user: User) -> None:
    assert (user.checkout / "tests").is_dir()
    assert (user.checkout / "packages" / "predict" / "__pycache__").is_dir()
    files = [path for path in (ROOT / "packages").rglob("*") if path.is_file()]
    needed = {str(path.relative_to(ROOT)) for path in files if path.suffix != ".pyc"}
    assert set(uploaded.files()) == {"config.yaml", *needed}


def test_the_upload_is_small(uploaded: Deployment) -> None:
    assert len(uploaded.archive) <= LARGEST


def test_the_upload_holds_the_chosen_model(uploaded: Deployment) -> None:
    title = uploaded.config["model_name"]
    assert uploaded.model.name == title
    assert f"model_name: {title}\n".encode() in uploaded.files()["config.yaml"]


def test_no_secret_is_uploaded(uploaded: Deployment) -> None:
    known = {card.weights.revision for card in cards.load_all()}
    for line in MODEL_INFOS.read_text().splitlines():
        known.add(json.loads(line.partition(" ")[2])["hash"])  # of a source of vLLM's
    for name, content in uploaded.files().items():
        assert (name, secrets_in(content.decode(), known)) == (name, [])


def test_the_user_s_own_key_stays_at_home(uploaded: Deployment, baseten: Baseten) -> None:
    assert baseten.key.encode() not in uploaded.archive


@pytest.mark.parametrize("name", TOKENS)
def test_a_secret_would_be_noticed(name: str) -> None:
    assert secrets_in(f"environment_variables:\n  SETTING: {TOKENS[name]}\n", set()) != []


def test_the_working_tree_s_config_is_left_alone(uploaded: Deployment) -> None:
    assert "MODEL=mistral-7b`" in (ROOT / "config.yaml").read_text()


# --- choices ---


def test_a_second_push_says_what_it_is_and_serves_nobody_yet(
    pushed: Callable[[str], Deployment], user: User
) -> None:
    first = pushed("mistral-7b")
    done = user.make("push", "MODEL=mistral-7b", "GPU=L4", "CONTEXT=8192")
    assert done.returncode == 0, done.stderr
    (said,) = [line for line in done.stdout.splitlines() if line.startswith("make push: Mistral")]
    assert said.startswith("make push: Mistral 7B Instruct v0.3 on L4:1, weights hf://mistralai/")
    assert said.endswith(", dtype float16, context 8192")
    assert "ENVIRONMENT=production makes it the one that does" in done.stdout
    second = user.baseten.newest
    assert second.model is first.model
    assert second is not first
    assert first.model.environments["production"].deployment is first


def test_a_push_to_an_environment_arrives_there(
    pushed: Callable[[str], Deployment], user: User, baseten: Baseten
) -> None:
    model = pushed("mistral-7b").model
    httpx.post(
        f"{baseten.url}/v1/models/{model.id}/environments",
        json={"name": "staging"},
        headers={"Authorization": f"Api-Key {baseten.key}"},
        trust_env=False,
    ).raise_for_status()
    deployment = user.push("MODEL=mistral-7b", "ENVIRONMENT=staging", "TEAM=Winds")
    assert model.environments["staging"].deployment is deployment
    assert model.environments["production"].deployment is not deployment


def test_an_environment_that_is_not_there_ends_the_push(
    pushed: Callable[[str], Deployment], user: User
) -> None:
    pushed("mistral-7b")
    done = user.make("push", "MODEL=mistral-7b", "ENVIRONMENT=nowhere")
    assert done.returncode != 0
    assert "Environment nowhere does not exist" in done.stdout + done.stderr


def test_a_team_that_is_not_there_ends_the_push(user: User) -> None:
    done = user.make("push", "MODEL=mistral-7b", "TEAM=Nobody's")
    assert done.returncode != 0
    assert "Team 'Nobody's' does not exist" in done.stdout + done.stderr


def test_a_variable_of_the_shell_chooses_no_environment(
    pushed: Callable[[str], Deployment], user: User
) -> None:
    """CI systems set ENVIRONMENT and TEAM to mean something else."""
    pushed("mistral-7b")
    done = user.run("sh", "-c", "ENVIRONMENT=nowhere TEAM=Nobody MODEL=none make push")
    assert done.returncode == 0, done.stderr
    assert "nowhere" not in done.stdout


def test_deploy_stops_at_a_failed_deployment_and_says_where_its_log_is(
    user: User, baseten: Baseten
) -> None:
    baseten.statuses.append("BUILD_FAILED")
    url = baseten.url
    done = user.make("deploy", "MODEL=mistral-7b", f"MANAGEMENT_URL={url}", f"BASE_URL={url}")
    assert done.returncode != 0
    steps = [line for line in done.stdout.splitlines() if " of 4: " in line]
    assert len(steps) == 2
    deployment = baseten.newest
    said = f"make deploy: the deployment {deployment.id} is BUILD_FAILED: its log says why, http"
    assert said in done.stderr
    assert baseten.key not in done.stdout + done.stderr


def test_deploy_to_an_environment_that_is_not_there_says_so(user: User) -> None:
    weights = ["WEIGHTS=hf://acme/own", "FORMAT=hf", "TITLE=Never pushed by another test"]
    done = user.make("deploy", "MODEL=mistral-7b", *weights, "ENVIRONMENT=staging")
    assert done.returncode != 0
    assert "truss push failed" in done.stderr
    assert "No environments exist" in done.stderr
    assert "The environment staging has to be there before a push to it" in done.stderr


def test_a_push_without_a_choice_pushes_config_yaml_as_it_is(user: User) -> None:
    config = user.checkout / "config.yaml"
    before = config.read_text()
    edited = before.replace("--shutdown-timeout 15", "--shutdown-timeout 7")
    edited += '  PREDICT_LIMIT_TOOLS: "7"\n'
    try:
        config.write_text(edited)
        deployment = user.push()
        assert deployment.files()["config.yaml"].decode() == edited
        refused = user.make("push", "MODEL=mistral-7b")
        assert refused.returncode != 0
        assert '-  PREDICT_LIMIT_TOOLS: "7"' in refused.stderr
        assert user.baseten.newest is deployment
        assert config.read_text() == edited
        assert b"PREDICT_LIMIT_TOOLS" not in user.push("FORCE=1", "GPU=L4").files()["config.yaml"]
    finally:
        config.write_text(before)


def test_the_key_in_the_variable_is_taken_before_that_of_a_login(user: User) -> None:
    trussrc = user.home / ".trussrc"
    before = trussrc.read_text()
    try:
        trussrc.write_text(before.replace(user.baseten.key, "wrong"))
        done = user.make("push", "MODEL=mistral-7b")
        assert done.returncode == 0, done.stderr
        assert "the key is that of BASETEN_API_KEY; what truss has itself" in done.stderr
    finally:
        trussrc.write_text(before)
