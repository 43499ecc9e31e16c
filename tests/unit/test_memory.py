import pytest

from deploy import cards, memory


@pytest.mark.parametrize(
    ("model", "count"),
    [
        ("mistral-7b", 7_248_023_552),
        ("mixtral-8x7b", 46_702_792_704),
        ("pixtral-12b", 12_682_739_712),
        ("mistral-nemo-12b", 12_247_782_400),
        ("mixtral-8x22b", 140_630_071_296),
    ],
)
def test_parameters_of_the_published_models(model: str, count: int) -> None:
    assert memory.parameters(cards.load(model).architecture).total == count


def test_weights_and_kv_cache_of_mixtral() -> None:
    shape = cards.load("mixtral-8x7b").architecture
    assert round(memory.weight_bytes(shape, 16) / memory.GIB) == 87
    assert memory.kv_bytes_per_token(shape) == 128 * 1024
    assert memory.kv_tokens(shape, memory.GIB) == 8192
    assert memory.kv_tokens(shape, memory.GIB, gpus=2) == 16384
    assert memory.kv_tokens(shape, -1) == 0


def test_a_large_image_of_pixtral_is_its_patches_and_its_rows() -> None:
    assert memory.image_tokens(cards.load("pixtral-12b").architecture) == 64 * 64 + 64
    assert memory.image_tokens(cards.load("mistral-7b").architecture) == 0
