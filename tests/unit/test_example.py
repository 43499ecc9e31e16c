"""The request that Baseten's page of the model offers."""

import base64
import io

import pytest
from PIL import Image

from deploy import cards
from deploy.example import IMAGE, example_input
from deploy.options import Options

PIXTRAL = cards.load("pixtral-12b")


def image(options: Options) -> str:
    (message,) = example_input(PIXTRAL, options)["messages"]
    return str(message["content"][1]["image_url"]["url"])


@pytest.mark.parametrize(
    "hosts", [None, "vetmed.illinois.edu", ".illinois.edu", "a.example,vetmed.illinois.edu"]
)
def test_an_image_that_may_be_fetched_stays(hosts: str | None) -> None:
    assert image(Options(image_hosts=hosts)).startswith("https://vetmed.illinois.edu/")


@pytest.mark.parametrize("hosts", ["none", "", "images.example.com", "illinois.edu"])
def test_an_image_that_may_not_be_fetched_is_replaced_by_one_in_the_request(hosts: str) -> None:
    assert image(Options(image_hosts=hosts)) == IMAGE
    assert PIXTRAL.example_input["messages"][0]["content"][1]["image_url"]["url"] != IMAGE


def test_the_image_is_one() -> None:
    found = Image.open(io.BytesIO(base64.b64decode(IMAGE.partition(",")[2])))
    assert (found.format, found.size, found.getpixel((5, 5))) == ("PNG", (64, 64), (225, 30, 30))


def test_a_text_model_s_example_is_the_card_s() -> None:
    card = cards.load("mistral-7b")
    assert example_input(card, Options()) == card.example_input
