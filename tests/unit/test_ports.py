import os
import socket

import pytest

from local.ports import listener


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1"])
def test_the_process_that_listens_is_named(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as server:
        try:
            server.bind((address, 0))
        except OSError:
            pytest.skip(f"this machine has no {address}")
        server.listen()
        port = server.getsockname()[1]
        said = listener(port)
        assert said is not None
        assert said.startswith(f"process {os.getpid()} (")
    assert listener(port) is None


def test_a_port_that_is_bound_only_has_no_listener() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        assert listener(other.getsockname()[1]) is None
