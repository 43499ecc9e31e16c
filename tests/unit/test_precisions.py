import pytest

from deploy import precisions
from deploy.precisions import PRECISIONS, PrecisionError


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("half", "fp16"),
        ("float16", "fp16"),
        ("FP16", "fp16"),
        ("bfloat16", "bf16"),
        ("8-bit", "int8"),
        ("8bit", "int8"),
        ("4-bit", "int4"),
        ("4bit", "int4"),
        ("8 bit", "int8"),
        ("4 Bit", "int4"),
        (" fp-8 ", "fp8"),
    ],
)
def test_precisions_have_the_names_users_know(spelling: str, name: str) -> None:
    assert precisions.parse(spelling).name == name


@pytest.mark.parametrize("name", ["", "int3", "8", "bits", "Fp32"])
def test_an_unknown_precision_is_quoted_as_it_was_typed(name: str) -> None:
    with pytest.raises(PrecisionError, match=f"PRECISION='{name}' is not known; use one of bf16"):
        precisions.parse(name)


def test_no_two_precisions_are_spelled_alike() -> None:
    for name in [*PRECISIONS, *precisions.SPELLINGS]:
        assert precisions.parse(name).name == precisions.SPELLINGS.get(name, name)
