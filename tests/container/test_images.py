"""Pixtral names the colour of plain images."""

import base64
import io
from typing import Any

import pytest

from local.standins.corpus import load_dialogues, plain_image
from tests.support.container import Running

pytestmark = pytest.mark.parametrize("container", ["pixtral-12b"], indirect=True)

IMAGES = load_dialogues()["images"]
SIZES = [(16, 16), (64, 64), (200, 300), (300, 200), (384, 512), (512, 384)]


def middle(colour: str) -> tuple[int, ...]:
    dark, light = IMAGES["colours"][colour]
    return tuple((low + high) // 2 for low, high in zip(dark, light, strict=True))


def part(colour: str, size: tuple[int, int] = (64, 64), kind: str = "PNG") -> dict[str, Any]:
    """A content part with a plain image as a data URL."""
    stream = io.BytesIO()
    plain_image(middle(colour), size).save(stream, kind)
    data = base64.b64encode(stream.getvalue()).decode()
    return {
        "type": "image_url",
        "image_url": {"url": f"data:image/{kind.lower()};base64,{data}"},
    }


def ask(container: Running, *parts: dict[str, Any], question: str = "What is this?") -> str:
    content: Any = [{"type": "text", "text": question}, *parts]
    response = container.client.chat.completions.create(
        model="pixtral", messages=[{"role": "user", "content": content}], max_tokens=64
    )
    return response.choices[0].message.content or ""


@pytest.mark.parametrize("colour", IMAGES["colours"])
def test_each_colour_is_named(container: Running, colour: str) -> None:
    for question in IMAGES["questions"]:
        got = ask(container, part(colour), question=question)
        assert got == IMAGES["answers"][0].format(colour)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_any_size_and_format(container: Running, size: tuple[int, int], kind: str) -> None:
    for colour in ("red", "blue"):
        assert ask(container, part(colour, size, kind)) == IMAGES["answers"][0].format(colour)


@pytest.mark.parametrize(
    ("first", "second"), [("red", "blue"), ("blue", "red"), ("white", "black"), ("green", "green")]
)
def test_two_images_in_order(container: Running, first: str, second: str) -> None:
    got = ask(container, part(first, (96, 64)), part(second, (64, 128), "JPEG"))
    assert got == IMAGES["answers"][1].format(first, second)


def test_more_images_than_the_card_allows_are_refused(container: Running) -> None:
    allowed = container.card.features.images
    content = [part("red", (16, 16))] * (allowed + 1)
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 8}
    response = container.http.post("/predict", json=body)
    assert response.status_code == 400
    assert str(allowed) in response.json()["error"]["message"]
    body["messages"] = [{"role": "user", "content": content[:allowed]}]
    assert container.http.post("/predict", json=body).status_code == 200
