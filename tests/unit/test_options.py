import pytest

from deploy import options
from deploy.errors import UsageError
from deploy.options import Options


@pytest.mark.parametrize("secret", ["", "a b", "$(id)", "x'; rm", "hf/key", "-x"])
def test_a_secret_name_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(UsageError, match="not the name of a Baseten secret"):
        Options(secret=secret)


def test_a_token_in_place_of_the_secret_name_is_refused_and_not_repeated() -> None:
    token = "hf_" + "x" * 34
    with pytest.raises(UsageError, match="looks like a Hugging Face token") as refused:
        Options(secret=token)
    assert token not in str(refused.value)


@pytest.mark.parametrize(
    "hosts",
    [
        "a b",
        "https://a.example",
        "*.a.example",
        "a..example",
        "-a",
        "a/b",
        "a.example.",
        "0x7f.1",
        "256.1.1.1",
        "1.1.1",
        "a.example,none",
    ],
)
def test_image_hosts_that_are_none_are_refused(hosts: str) -> None:
    with pytest.raises(UsageError, match="which is not a host"):
        Options(image_hosts=hosts)


@pytest.mark.parametrize("value", ["-1", "32k", "", "0", "8192.0", "²", "9" * 10])
def test_a_context_that_is_not_a_number_of_tokens_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match=f"CONTEXT='{value}' is not a number of tokens"):
        options.context_of(value)


@pytest.mark.parametrize("value", ["0", "-1", "two", "", "1.5", "1000000"])
def test_what_is_no_rank_is_refused(value: str) -> None:
    with pytest.raises(
        UsageError, match=f"RANK='{value}' is not a number above 0; use for example"
    ):
        options.number_of("RANK", value)
    assert options.number_of("RANK", "16") == 16
