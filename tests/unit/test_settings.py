from collections.abc import Callable
from typing import Any

import pytest
from predict.images.formats import read_formats
from predict.images.urls import read_policy
from predict.settings import Settings, read

from deploy import cards, environment
from deploy.limits import IMAGES, SETTINGS
from deploy.paths import ROOT
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
        ("PREDICT_LIMIT_TOOLS", "-1"),
        ("PREDICT_TOP_K", "-2"),
        ("PREDICT_STALL_SECONDS", "nan"),
    ],
)
def test_a_value_that_cannot_be_read_is_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is '{value}'"):
        read({name: value})


@pytest.mark.parametrize(
    ("readers", "known"), [([read], SETTINGS), ([read_policy, read_formats], IMAGES)]
)
def test_every_variable_that_is_read_may_be_given(
    readers: list[Callable[[dict[str, str]], object]], known: dict[str, Any]
) -> None:
    asked: set[str] = set()

    class Variables(dict[str, str]):
        def __getitem__(self, name: str) -> str:
            raise AssertionError(name)

        def get(self, name: str, default: Any = None) -> Any:
            asked.add(name)
            return default

        def __contains__(self, name: object) -> bool:
            asked.add(str(name))
            return False

    for one in readers:
        one(Variables())
    assert sorted(asked) == sorted(known)


def test_every_setting_is_in_the_page_that_the_refusal_of_another_names() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    limits = page.split("\n## Limits\n")[1].split("\n## ")[0]
    images = page.split("\n## Images\n")[1].split("\n## ")[0]
    written = {name for name in SETTINGS if not name.startswith("PREDICT_LIMIT_")}
    assert [name for name in sorted(written) if name not in limits] == []
    assert [name for name in sorted(IMAGES) if name not in images] == []


@pytest.mark.parametrize("value", ["3", "0", "0.5", "-1", "-2", "-0.5", "nan", "many"])
@pytest.mark.parametrize("name", [name for name in SETTINGS if name not in environment.REFUSED])
def test_what_the_start_would_refuse_is_refused_before_the_push(name: str, value: str) -> None:
    def takes(read: Callable[[dict[str, str]], object]) -> bool:
        try:
            read({name: value})
        except ValueError:
            return False
        return True

    assert takes(environment.check) == takes(read)


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
