"""The names of adapters in vLLM's error about a model that is not served."""

from predict import settings
from predict.errors.reading import with_adapters
from predict.vllm_internals import MODEL_NAMES

NOT_SERVED = f"The model `x` {MODEL_NAMES}mistral-7b."


def test_the_adapters_are_listed_beside_the_model_s_names() -> None:
    assert with_adapters(NOT_SERVED, ["legal", "medical"]).endswith("mistral-7b, legal, medical")
    assert with_adapters(NOT_SERVED, []) == NOT_SERVED
    assert with_adapters("another error", ["legal"]) == "another error"


def test_the_names_are_a_variable_of_the_container() -> None:
    assert settings.read({"PREDICT_ADAPTERS": "legal,medical"}).adapters == ("legal", "medical")
    assert settings.read({}).adapters == ()
