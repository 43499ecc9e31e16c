import pytest
from predict import hub_token


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refusal_names_the_secret_where_to_set_it_and_the_terms(status: int) -> None:
    told = hub_token.fault("my_token", "maker/model", status, "No.")
    assert f"the Baseten secret my_token for maker/model ({status}: No.)" in told
    assert "https://app.baseten.co/settings/secrets" in told
    assert "https://huggingface.co/maker/model" in told


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_hub_is_not_blamed_on_the_token(status: int) -> None:
    told = hub_token.fault("my_token", "maker/model", status, "")
    assert f"does not serve maker/model now ({status}: no reason given): try again later" in told
    assert "my_token" not in told


def test_what_others_say_is_one_line_without_the_token() -> None:
    said = hub_token.one_line("No such\n token:  hf_abc\n" + "x" * 999, "hf_abc")
    assert said.startswith("No such token: [token] xxx")
    assert len(said) == 300
