"""The calls of the documents whose users this project serves, as printed there (tests/seeds).

What differs: the host; in the Mistral 7B curl the quotes, which as printed end the shell's string
at "What's"; in the Pixtral curl the picture, which is a plain one served from here.
"""

import http.server
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from local.standins.corpus import load_dialogues, plain_image
from scripts.cards import ROOT
from scripts.serve import URL
from tests.container.running import Running

Chats = dict[str, tuple[list[Any], str]]

text_models = pytest.mark.parametrize("container", ["mixtral-8x7b", "mistral-7b"], indirect=True)
pixtral = pytest.mark.parametrize("container", ["pixtral-12b"], indirect=True)

SEEDS = ROOT / "tests" / "seeds"

HOSTS = {
    " https://app.baseten.co/model_versions/YOUR_MODEL_VERSION_ID": URL,
    "https://bridge.baseten.co/{model_id}": URL,
    "https://model-{model_id}.api.baseten.co/production": URL,
}


def here(name: str) -> str:
    """The printed call with the hosts of this machine's container."""
    printed = (SEEDS / name).read_text()
    for there, local in HOSTS.items():
        printed = printed.replace(there, local)
    assert "baseten.co" not in printed
    return printed


def shell(command: str) -> str:
    quiet = command.replace("curl ", "curl --silent --show-error --fail-with-body ")
    return subprocess.run(["sh", "-c", quiet], capture_output=True, check=True, text=True).stdout


def python(script: str) -> str:
    """What the script prints."""
    environment = {**os.environ, "BASETEN_API_KEY": "not-needed-here", "NO_PROXY": "*"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, env=environment, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def predict(container: Running, name: str) -> Any:
    """As `truss predict -d` sends it."""
    response = container.http.post("/v1/models/model:predict", json=json.loads(here(name)))
    assert response.status_code == 200, response.text
    return response.json()


def test_mixtral_s_truss_predict(container: Running, chats: Chats) -> None:
    assert predict(container, "mixtral-predict.json")["output"] == chats["mistral_wind"][1]


@text_models
def test_mixtral_s_curl(container: Running, chats: Chats) -> None:
    assert shell(here("mixtral-curl.sh")) == chats["meaning_of_life_in_detail"][1]


def test_mistral_s_truss_predict(container: Running, chats: Chats) -> None:
    assert predict(container, "mistral-predict.json")["output"] == chats["meaning_of_life"][1]


@text_models
def test_mistral_s_curl(container: Running, chats: Chats) -> None:
    got = json.loads(shell(here("mistral-curl.sh")))
    assert got["output"] == chats["meaning_of_life_contracted"][1]


@text_models
def test_the_library_page_s_openai_client(container: Running, chats: Chats) -> None:
    assert python(here("library-openai.py")).strip() == chats["mistral_two_turns"][1]


@text_models
def test_the_library_page_s_openai_client_streaming(container: Running, chats: Chats) -> None:
    printed = python(here("library-openai-streaming.py")).splitlines()
    assert "".join(line for line in printed if line != "None") == chats["mistral_two_turns"][1]
    assert len(printed) > 10


@text_models
def test_the_library_page_s_requests(container: Running, chats: Chats) -> None:
    printed = python(here("library-requests.py"))
    assert printed.startswith("{'output': ")
    assert repr(chats["mistral_two_turns"][1]) in printed


@text_models
def test_the_library_page_s_requests_streaming(container: Running, chats: Chats) -> None:
    assert python(here("library-requests-streaming.py")) == chats["mistral_two_turns"][1]


@pixtral
def test_pixtral_s_truss_predict(container: Running, chats: Chats) -> None:
    choice = predict(container, "pixtral-predict.json")["choices"][0]
    assert choice["message"]["content"] == chats["yourself"][1]


@pixtral
def test_pixtral_s_curl(container: Running, picture: str) -> None:
    hedgehog = "https://vetmed.illinois.edu/wp-content/uploads/2021/04/pc-keller-hedgehog.jpg"
    printed = shell(here("pixtral-curl.sh").replace(hedgehog, picture))
    lines = [line for line in printed.splitlines() if line.startswith("data: {")]
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in lines]
    answer = load_dialogues()["images"]["answers"][0].format("red")
    assert "".join(delta.get("content") or "" for delta in deltas) == answer


@pytest.fixture
def picture() -> Iterator[str]:
    """The address of a red picture."""
    stream = io.BytesIO()
    plain_image((220, 30, 30), (96, 64)).save(stream, "JPEG")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.end_headers()
            self.wfile.write(stream.getvalue())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hedgehog.jpg"
        server.shutdown()
