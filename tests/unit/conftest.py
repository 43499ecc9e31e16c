"""What tests of fetching images share: a host on loopback, and the policy that allows it; and what
those of stand-ins share: each card in turn, and its corpus."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from predict.images.urls import FetchPolicy, read_policy

from deploy import cards
from deploy.cards import Card
from tests.support.image_host import ImageHost, serving

if TYPE_CHECKING:
    from local.standins.corpus import Corpus


@pytest.fixture(scope="module")
def host() -> Iterator[ImageHost]:
    with serving() as server:
        yield server


@pytest.fixture
def policy(host: ImageHost) -> FetchPolicy:
    return read_policy({"ALLOWED_IMAGE_ADDRESSES": f"127.0.0.1:{host.port}"})


@pytest.fixture(params=cards.names())
def card(request: pytest.FixtureRequest) -> Card:
    return cards.load(request.param)


@pytest.fixture
def corpus(card: Card) -> "Corpus":
    from local.standins.corpus import Corpus  # seconds of imports, which other tests do without
    from tests.support.tokenizers import tokenizer

    return Corpus(tokenizer(card.name), card.features.tools, card.features.images > 0)
