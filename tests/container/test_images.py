"""Pixtral names the colour of plain images."""

import pytest

from tests.support.container import Running
from tests.support.images import IMAGES, ask, part

pytestmark = pytest.mark.parametrize("container", ["pixtral-12b"], indirect=True)

SIZES = [tuple(size) for size in IMAGES["sizes"]]  # those of the stand-in's exam


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
