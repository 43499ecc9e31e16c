"""What the commands that call Baseten share: the key, ids, addresses, errors, waiting."""

from pathlib import Path

import pytest

from deploy import baseten
from deploy.baseten import BasetenError


def test_only_what_is_not_so_yet_differs() -> None:
    assert baseten.differing({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}) == {"b": 3, "c": 4}


@pytest.mark.parametrize("environment", [{}, {"BASETEN_API_KEY": "  "}])
def test_a_missing_key_is_said(environment: dict[str, str]) -> None:
    with pytest.raises(BasetenError, match="BASETEN_API_KEY is not set"):
        baseten.api_key(environment, stored=lambda: "")


def test_the_key_of_truss_is_taken_where_the_variable_is_not_set() -> None:
    assert baseten.api_key({}, stored=lambda: "stored") == "stored"
    assert baseten.api_key({"BASETEN_API_KEY": "set"}, stored=lambda: "stored") == "set"


def test_the_variable_is_truss_s_key_too_where_nobody_has_logged_in(tmp_path: Path) -> None:
    given = {"BASETEN_API_KEY": "key", "HOME": str(tmp_path)}
    found = baseten.truss_environment(given)
    assert found["BASETEN_TRUSS_AUTH_API_KEY"] == "key"
    assert found["BASETEN_TRUSS_AUTH_REMOTE_URL"] == "https://app.baseten.co"
    other = {**given, "BASETEN_TRUSS_AUTH_API_KEY": "own"}
    assert baseten.truss_environment(other) == other
    with pytest.raises(BasetenError, match="is not set, and truss has no key either"):
        baseten.truss_environment({"HOME": str(tmp_path)})
    (tmp_path / ".trussrc").touch()
    assert baseten.truss_environment(given) == given


@pytest.mark.parametrize("key", ["abc\ndef", "abc def", "clé"])
def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(BasetenError, match="is not a key") as caught:
        baseten.api_key({"BASETEN_API_KEY": key})
    assert key not in str(caught.value)


@pytest.mark.parametrize("value", ["", "https://app.baseten.co/models/abc", "a/b", "a b", "-x"])
def test_what_is_not_an_id_is_refused(value: str) -> None:
    with pytest.raises(BasetenError, match="MODEL_ID="):
        baseten.checked_id("MODEL_ID", value)


def test_the_key_is_not_sent_unencrypted_to_another_machine() -> None:
    with pytest.raises(BasetenError, match="unencrypted"):
        baseten.checked_address("http://api.baseten.co")
    assert baseten.checked_address("http://127.0.0.1:1/x/") == "http://127.0.0.1:1/x"
    with pytest.raises(BasetenError, match="not an address"):
        baseten.checked_address("api.baseten.co")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"code": "X", "message": "why"}', "why"),
        ('{"error": "why"}', "why"),
        ('{"error": {"message": "why", "code": 400}}', "why"),
        ("<h1>Bad\n gateway</h1>", "<h1>Bad gateway</h1>"),
        ("", "no reason given"),
        ('{"detail": "x"}', "{'detail': 'x'}"),
    ],
)
def test_an_error_is_read_in_each_of_its_shapes(body: str, said: str) -> None:
    assert baseten.message(body) == said
