"""The calls in the documents whose users this project serves, as printed there (tests/seeds).

Each goes to the container itself and through the platform, with the real `truss predict`.
Differences from the print: hosts, ids and the key; in the Mistral 7B curl the quotes, which as
printed end the shell's string at "What's"; in the Pixtral curl the picture, which is a plain one
served locally; `--published` with `truss predict`, because a custom server has no development
deployment.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from deploy.paths import ROOT
from local.standins.corpus import load_dialogues
from local.truss import URL
from tests.support.baseten import Baseten
from tests.support.container import Running, flowing
from tests.support.image_host import ImageHost
from tests.support.user import User

Chats = dict[str, tuple[list[Any], str]]
Printed = Callable[[str], str]

text_models = pytest.mark.parametrize("container", ["mixtral-8x7b", "mistral-7b"], indirect=True)
mixtral = pytest.mark.parametrize("container", ["mixtral-8x7b"], indirect=True)
mistral = pytest.mark.parametrize("container", ["mistral-7b"], indirect=True)
pixtral = pytest.mark.parametrize("container", ["pixtral-12b"], indirect=True)

SEEDS = ROOT / "tests" / "seeds"


def at_the_container(container: Running, baseten: Baseten) -> dict[str, str]:
    """The printed text → its replacement when the container is called directly."""
    return {
        " https://app.baseten.co/model_versions/YOUR_MODEL_VERSION_ID": URL,
        "https://bridge.baseten.co/{model_id}": URL,
        "https://model-{model_id}.api.baseten.co/production": URL,
    }


def through_the_platform(container: Running, baseten: Baseten) -> dict[str, str]:
    return {
        " https://app.baseten.co": baseten.url,  # curl accepts no space there
        "https://bridge.baseten.co": baseten.url,
        "https://model-{model_id}.api.baseten.co": f"{baseten.url}/model-{{model_id}}",
        "YOUR_MODEL_VERSION_ID": container.deployment.id,
        'model_id = ""': f'model_id = "{container.deployment.model.id}"',
        "{YOUR_API_KEY}": baseten.key,
    }


@pytest.fixture(params=[at_the_container, through_the_platform], ids=["container", "platform"])
def printed(request: pytest.FixtureRequest, container: Running, baseten: Baseten) -> Printed:
    """A seed's name → its text for one of the two ways to the container."""
    replaced = request.param(container, baseten)

    def read(name: str) -> str:
        text = (SEEDS / name).read_text()
        for there, here in replaced.items():
            text = text.replace(there, here)
        assert "baseten.co" not in text
        return text

    return read


def shell(command: str) -> str:
    quiet = command.replace("curl ", "curl --silent --show-error --fail-with-body ")
    return subprocess.run(["sh", "-c", quiet], capture_output=True, check=True, text=True).stdout


def python(user: User, script: str) -> str:
    """The output of the script."""
    done = user.run(sys.executable, "-c", script)
    assert done.returncode == 0, done.stderr
    return done.stdout


def predict(container: Running, user: User, request: str) -> str:
    """The output of `truss predict` in the folder of the truss, after its own first line."""
    truss = container.log.parent / "uploaded"
    done = user.truss("predict", "--published", "-d", request, cwd=truss)
    assert done.returncode == 0, done.stderr
    first, _, rest = done.stdout.partition("\n")
    assert first == f"Calling predict on deployment ID {container.deployment.id}..."
    return rest


def seed(name: str) -> str:
    return (SEEDS / name).read_text()


# --- Mixtral 8x7B and Mistral 7B ---


@mixtral
def test_mixtral_s_truss_predict(container: Running, user: User, chats: Chats) -> None:
    got = json.loads(predict(container, user, seed("mixtral-predict.json")))
    assert got["output"] == chats["mistral_wind"][1]


@mistral
def test_mistral_s_truss_predict(container: Running, user: User, chats: Chats) -> None:
    got = json.loads(predict(container, user, seed("mistral-predict.json")))
    assert got["output"] == chats["meaning_of_life"][1]


@mistral
def test_truss_predict_streams(container: Running, user: User, chats: Chats) -> None:
    request = {**json.loads(seed("mistral-predict.json")), "stream": True}
    assert predict(container, user, json.dumps(request)) == chats["meaning_of_life"][1]


@text_models
def test_mixtral_s_curl(printed: Printed, chats: Chats) -> None:
    assert shell(printed("mixtral-curl.sh")) == chats["meaning_of_life_in_detail"][1]


@text_models
def test_mistral_s_curl(printed: Printed, chats: Chats) -> None:
    got = json.loads(shell(printed("mistral-curl.sh")))
    assert got["output"] == chats["meaning_of_life_contracted"][1]


# --- the library page ---


@text_models
def test_the_library_page_s_openai_client(printed: Printed, user: User, chats: Chats) -> None:
    got = python(user, printed("library-openai.py"))
    assert got.strip() == chats["mistral_two_turns"][1]


@text_models
def test_the_library_page_s_openai_client_streaming(
    printed: Printed, user: User, chats: Chats
) -> None:
    script = printed("library-openai-streaming.py")
    lines = flowing(lambda: python(user, script).splitlines(), 2)
    assert "".join(line for line in lines if line != "None") == chats["mistral_two_turns"][1]
    assert len(lines) > 2


@text_models
def test_the_library_page_s_requests(printed: Printed, user: User, chats: Chats) -> None:
    got = python(user, printed("library-requests.py"))
    assert got.startswith("{'output': ")
    assert repr(chats["mistral_two_turns"][1]) in got


@text_models
def test_the_library_page_s_requests_streaming(printed: Printed, user: User, chats: Chats) -> None:
    got = python(user, printed("library-requests-streaming.py"))
    assert got == chats["mistral_two_turns"][1]


# --- Pixtral 12B ---


@pixtral
def test_pixtral_s_truss_predict(container: Running, user: User, chats: Chats) -> None:
    got = json.loads(predict(container, user, seed("pixtral-predict.json")))
    assert got["choices"][0]["message"]["content"] == chats["yourself"][1]


@pixtral
def test_pixtral_s_curl(printed: Printed, image_host: ImageHost) -> None:
    hedgehog = "https://vetmed.illinois.edu/wp-content/uploads/2021/04/pc-keller-hedgehog.jpg"
    got = shell(printed("pixtral-curl.sh").replace(hedgehog, image_host.url("/red.png")))
    lines = [line for line in got.splitlines() if line.startswith("data: {")]
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in lines]
    answer = load_dialogues()["images"]["answers"][0].format("red")
    assert "".join(delta.get("content") or "" for delta in deltas) == answer


# --- requests of chat interfaces and editors to an OpenAI-compatible server ---


def streamed(container: Running, path: str, name: str) -> tuple[str, str]:
    """The text of the streamed answer to a seed, and the ignored parts of the request."""
    body = {**json.loads(seed(name)), "model": container.card.name}
    response = container.http.post(path, json=body)
    assert response.status_code == 200, response.text
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line[:7] == "data: {"]
    choices = [event["choices"][0] for event in events if event["choices"]]
    pieces = [one.get("text") or one.get("delta", {}).get("content") or "" for one in choices]
    return "".join(pieces), response.headers.get("x-ignored-parameters", "")


@mistral
@pytest.mark.parametrize("name", ["open-webui", "continue-chat", "librechat"])
def test_what_interfaces_send_is_answered(container: Running, chats: Chats, name: str) -> None:
    got, ignored = streamed(container, "/v1/chat/completions", f"{name}.json")
    assert got == chats["mistral_wind"][1]
    assert ("num_ctx" in ignored) == (name == "open-webui")


@mistral
def test_open_webui_s_continue_continues(container: Running, chats: Chats) -> None:
    got, _ = streamed(container, "/v1/chat/completions", "open-webui-continue.json")
    assert "The Mistral is a strong" + got == chats["mistral_wind"][1]


@mistral
def test_continue_s_autocomplete_is_answered(container: Running) -> None:
    streamed(container, "/v1/completions", "continue-autocomplete.json")
