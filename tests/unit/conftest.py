"""What tests of fetching images share: a host on loopback, and the policy that allows it."""

from collections.abc import Iterator

import pytest
from predict.images.urls import FetchPolicy, read_policy

from tests.support.image_host import ImageHost, serving


@pytest.fixture(scope="module")
def host() -> Iterator[ImageHost]:
    with serving() as server:
        yield server


@pytest.fixture
def policy(host: ImageHost) -> FetchPolicy:
    return read_policy({"ALLOWED_IMAGE_ADDRESSES": f"127.0.0.1:{host.port}"})
