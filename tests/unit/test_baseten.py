"""What the commands that call Baseten share: the key, ids, addresses, errors, waiting."""

import importlib
from pathlib import Path

import pytest

from deploy import baseten
from deploy.baseten import APP, BasetenError
from scripts.command import Program


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
    with pytest.raises(BasetenError, match="is not set, and truss has no key either"):
        baseten.truss_environment({"HOME": str(tmp_path)})


@pytest.mark.parametrize("where", ["file", "variables"])
def test_the_variable_is_truss_s_key_too_where_truss_has_another(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"HOME": str(tmp_path)}
    if where == "file":
        (tmp_path / ".trussrc").touch()
    else:
        given |= {"BASETEN_TRUSS_AUTH_API_KEY": "own", "BASETEN_TRUSS_AUTH_REMOTE_URL": APP}

    def found(key: str, remote: tuple[str, str] = (APP, "own")) -> dict[str, str]:
        return baseten.truss_environment({**given, "BASETEN_API_KEY": key}, lambda: remote)

    def unchanged(key: str, remote: tuple[str, str] = (APP, "own")) -> bool:
        return found(key, remote) == given | {"BASETEN_API_KEY": key}

    assert unchanged("")
    assert unchanged("own")
    assert capsys.readouterr().err == ""
    for elsewhere in ("https://elsewhere.example", "http://app.baseten.co", "app.baseten.co"):
        assert unchanged("key", (elsewhere, "own"))
        said = capsys.readouterr().err
        assert f"truss asks {elsewhere}, which is not {APP}: the key is truss's own" in said
    for remote in ((APP, "own"), (APP, ""), ("", "")):  # a login by the browser has no key
        other = found("key", remote)
        assert other["BASETEN_TRUSS_AUTH_API_KEY"] == "key"
        assert other["BASETEN_TRUSS_AUTH_REMOTE_URL"] == APP
        said = capsys.readouterr().err
        assert said.startswith("the key is that of BASETEN_API_KEY; what truss has") == any(remote)
        assert said.count("TEAM=") == any(remote)


def test_the_key_that_truss_has_is_taken_for_baseten_alone_and_encrypted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stored(address: str) -> str:
        monkeypatch.setattr(baseten, "truss_remote", lambda: (address, "own"))
        return baseten.stored_key()

    assert stored(APP) == "own"
    for other in ("http://app.baseten.co", "https://elsewhere.example", "app.baseten.co", ""):
        assert stored(other) == ""


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["smoke", "MODEL_ID=abc", "GPU=NOPE"], "GPU='NOPE' is not known"),
        (["smoke", "MODEL_ID=abc", "PRECISION=int3"], "PRECISION='int3' is not known"),
        (["smoke", "MODEL_ID=abc", "CONTEXT=long"], "CONTEXT='long' is not a number of tokens"),
        (["smoke", "MODEL_ID=abc", "TIMEOUT=0"], "TIMEOUT=0 is not a number of seconds above 0"),
        (["smoke", "MODEL_ID=abc", "CONFIG=none.yaml"], "CONFIG=none.yaml: there is no such file"),
        (
            ["smoke", "MODEL_ID=abc", "REPORT=none/a.md"],
            "the folder none does not exist; create it",
        ),
        (["smoke", "MODEL_ID=abc", "REPORT=."], "REPORT=. is a folder; name a file"),
        (["smoke", "MODEL_ID=a b"], "MODEL_ID= is 'a b', which is not an id"),
        (["smoke", "MODEL_ID=abc", "BASE_URL=abc"], "BASE_URL='abc' is not an address"),
        (["autoscale", "MODEL_ID=abc", "GPU=NOPE"], "GPU='NOPE' is not known"),
        (["autoscale", "MODEL_ID=a b"], "MODEL_ID= is 'a b', which is not an id"),
        (["autoscale", "MODEL_ID=abc", "BASE_URL=abc"], "BASE_URL='abc' is not an address"),
        (["autoscale", "MODEL_ID=abc", "CONFIG=none.yaml"], "CONFIG=none.yaml: there is no such"),
        (["push", "MODEL=mistral-7b", "GPU=NOPE"], "GPU='NOPE' is not known"),
        (["push", "ENVIRONMENT=a b"], "ENVIRONMENT= is 'a b', which is not an id"),
        (["deploy", "MODEL=mistral-7b", "GPU=NOPE"], "GPU='NOPE' is not known"),
        (["deploy", "ENVIRONMENT=a b"], "ENVIRONMENT= is 'a b', which is not an id"),
        (["deploy", "BASE_URL=abc"], "BASE_URL='abc' is not an address"),
        (["deploy", "MANAGEMENT_URL=abc"], "MANAGEMENT_URL='abc' is not an address"),
        (["deploy", "REPORT=none/a.md"], "REPORT=none/a.md: the folder none does not exist"),
        (["predict", "DATA={"], "DATA= is not JSON"),
    ],
    ids=lambda it: " ".join(it) if isinstance(it, list) else "",
)
def test_what_is_given_is_looked_at_before_the_key(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def asked(*of: object) -> str:
        raise AssertionError("the key was asked for first")

    monkeypatch.setattr(baseten, "api_key", asked)
    monkeypatch.setenv("HOME", str(tmp_path))
    command, *given = words
    main: Program = importlib.import_module(f"scripts.{command}").main
    assert main(given) != 0
    assert said in capsys.readouterr().err
