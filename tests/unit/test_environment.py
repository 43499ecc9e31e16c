import pytest

from deploy import environment
from deploy.errors import UsageError


def test_variables_are_words_of_a_shell() -> None:
    assert environment.parse("VLLM_LOGGING_LEVEL=WARNING") == {"VLLM_LOGGING_LEVEL": "WARNING"}
    text = "A=1 B='two words' C='x=y' PREDICT_LIMIT_TOKEN_IDS=7 D="
    assert environment.parse(text) == {
        "A": "1",
        "B": "two words",
        "C": "x=y",
        "PREDICT_LIMIT_TOKEN_IDS": "7",
        "D": "",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A", "has 'A', which is not NAME=VALUE"),
        ("=1", "'', which is not the name of a variable"),
        ("a-b=1", "'a-b', which is not the name"),
        ("A=1 A=2", "has A twice"),
        ("A='1", "No closing quotation"),
        ("A='1\n2'", "has a line break"),
        ("HF_TOKEN=x", "looks like a secret"),
        ("AWS_SECRET_ACCESS_KEY=x", "looks like a secret"),
        ("VLLM_API_KEY=x", "looks like a secret"),
        ("PYTHONPATH=/x", "the middleware is found by it"),
        ("VLLM_LOGGING_LEVEL=DEBUG", "DEBUG logs what requests say: to debug, set it under"),
        ("VLLM_PLUGINS=", "loaded as a plugin"),
        ("PREDICT_LIMIT_BOY_BYTES=3", "no setting .*; did you mean PREDICT_LIMIT_BODY_BYTES\\?"),
        ("PREDICT_X=3", "no setting of the middleware; did you|no setting .* docs/operations.md"),
        ("A=1,B=2", "A would be '1,B=2'; is B another variable\\?"),
    ],
)
def test_what_cannot_be_a_variable_of_the_container_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        environment.parse(text)
