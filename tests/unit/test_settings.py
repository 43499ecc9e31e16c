import pytest
from predict.settings import Settings, read

from deploy import cards
from deploy.variables import predict_settings


def test_nothing_set_means_no_defaults() -> None:
    assert read({}) == Settings()
    assert read({"PREDICT_TEMPERATURE": ""}) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PREDICT_MAX_NEW_TOKENS", "many"),
        ("PREDICT_TEMPERATURE", "warm"),
        ("PREDICT_DEFAULTS_FOR_MESSAGES", "yes"),
        ("PREDICT_STREAM_INTERVAL", "0.5"),
    ],
)
def test_a_value_that_cannot_be_read_is_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is '{value}'"):
        read({name: value})


def test_every_card_s_defaults_arrive() -> None:
    for card in cards.load_all():
        got = read(predict_settings(card))
        assert got.max_new_tokens == card.sampling.max_tokens
        assert got.max_new_tokens_limit == card.sampling.max_tokens_limit
        assert got.defaults_for_messages == card.sampling.openai_requests
        given = ("temperature", "top_p", "top_k")
        expected = {name: getattr(card.sampling, name) for name in given}
        assert got.sampling == {
            name: value for name, value in expected.items() if value is not None
        }
