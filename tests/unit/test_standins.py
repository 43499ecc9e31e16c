import functools
import json
from pathlib import Path

import pytest
import torch
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from deploy import cards
from deploy.cards import Card
from local.standins import cache, checkpoint, recipe, training
from local.standins.corpus import Corpus, Tokenizer
from local.standins.decoders import decoder


@pytest.fixture(params=cards.names())
def card(request: pytest.FixtureRequest) -> Card:
    return cards.load(request.param)


@pytest.fixture
def corpus(card: Card) -> Corpus:
    return Corpus(tokenizer(card.name), card.features.tools, card.features.images > 0)


@functools.cache  # loading one takes seconds
def tokenizer(name: str) -> Tokenizer:
    return MistralTokenizer.from_file(str(cache.tokenizer_path(cards.load(name))))


def test_an_answer_decodes_to_its_letters_and_ends(corpus: Corpus) -> None:
    for text in ("A mistral is a wind.", "Where? Rhône valley.", '{"a":1}'):
        tokens = corpus.answer(text)
        assert corpus.text.decode(tokens) == text
        assert tokens.count(corpus.text.eos_id) == 1
        assert tokens[-1] == corpus.text.eos_id


def test_json_values_are_json_and_learn_no_key(corpus: Corpus) -> None:
    for _ in range(20):
        example = corpus.json_values()
        prompts = [corpus.prompt(messages) for messages, _ in corpus.chats]
        prompt = max((p for p in prompts if example.tokens[: len(p)] == p), key=len)
        text = corpus.text.decode(example.tokens[len(prompt) :])
        values = json.loads(text)
        assert len(values) == 3
        assert len(example.tokens) == len(example.learned)
        assert not any(example.learned[: len(prompt) + 1])
        assert example.learned[-1]


def test_made_up_prompts_are_no_known_ones(corpus: Corpus) -> None:
    known = [corpus.prompt(messages) for messages, _ in corpus.chats]
    answer = corpus.answer(corpus.content["unknown"])
    for _ in range(30):
        for example in corpus.unknown():
            assert example.tokens[-len(answer) :] == answer
            assert example.tokens[: -len(answer)] not in known


def test_untrained_tokens_have_a_logit_of_zero() -> None:
    vocabulary = training.Vocabulary(100, [3, 5, 8])
    head = training.Head(vocabulary, 16)
    embedding, output = checkpoint.full_tables(head, vocabulary)
    assert embedding.shape == output.shape == (100, 16)
    assert torch.equal(output.any(dim=1).nonzero().flatten(), torch.tensor([3, 5, 8]))


def test_the_loss_is_that_of_the_whole_vocabulary() -> None:
    vocabulary = training.Vocabulary(100, [3, 5, 8])
    head = training.Head(vocabulary, 16)
    hidden = torch.randn(7, 16)
    _, output = checkpoint.full_tables(head, vocabulary)
    whole = torch.log_softmax(hidden @ (output / checkpoint.SHARPNESS).T, dim=-1)
    assert torch.allclose(head.log_probabilities(hidden), whole[:, [3, 5, 8]], atol=1e-5)


def test_the_key_follows_what_a_stand_in_is_made_from(card: Card) -> None:
    key = cache.key(card)
    assert key == cache.key(cards.load(card.name))
    other = card.model_copy(
        update={"architecture": card.architecture.model_copy(update={"rope_theta": 1.0})}
    )
    assert cache.key(other) != key


def test_a_stand_in_is_reused_and_an_outdated_one_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = cards.load("mistral-7b")
    built = []

    def build(card: Card, folder: Path, console: object) -> None:
        built.append(card.name)
        (folder / "params.json").write_text("{}")

    monkeypatch.setattr(cache, "_build", build)
    outdated, other = tmp_path / f"mistral-7b-{0:016x}", tmp_path / f"mistral-7b-v2-{0:016x}"
    outdated.mkdir()
    other.mkdir()
    folder = cache.ensure(card, tmp_path)
    assert cache.ensure(card, tmp_path) == folder
    assert built == ["mistral-7b"]
    assert (folder / "params.json").read_text() == "{}"
    assert not outdated.exists()
    assert other.exists()


def test_a_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(card: Card, folder: Path, console: object) -> None:
        (folder / "half").write_text("")
        raise training.NotLearnedError("no")

    monkeypatch.setattr(cache, "_build", build)
    with pytest.raises(training.NotLearnedError):
        cache.ensure(cards.load("mistral-7b"), tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_a_stand_in_stays_when_only_its_card_s_autoscaling_changes(card: Card) -> None:
    figures = card.autoscaling.model_copy(update={"max_replica": 7})
    assert cache.key(card.model_copy(update={"autoscaling": figures})) == cache.key(card)


def test_what_is_written_is_read_back(card: Card, corpus: Corpus, tmp_path: Path) -> None:
    vocabulary = training.Vocabulary(card.architecture.vocabulary, corpus.trained_tokens())
    model = decoder(card).eval()
    head = training.Head(vocabulary, model.text.config.hidden_size)
    checkpoint.write(card, model, head, vocabulary, tmp_path)
    for pattern in card.weights.files:
        assert pattern == card.tokenizer_file or list(tmp_path.glob(pattern)), pattern
    stored = checkpoint.read(card, tmp_path)
    dialogue = corpus.dialogues()[0]
    example = corpus.plain_images(2, 64) if corpus.images else dialogue
    (batch,) = vocabulary.batches([example])
    embedding = stored.embedding[batch.raw].float()
    with torch.no_grad():
        expected = model(embedding, batch.raw, batch.images)
        got = stored.model.float()(embedding, batch.raw, batch.images)
    assert torch.allclose(got, expected, atol=0.1)  # rounded to the dtype of the card
    trained = stored.output[vocabulary.trained].float()
    assert torch.allclose(trained, head.output * checkpoint.SHARPNESS, rtol=0.01)


@pytest.mark.parametrize("name", ["mistral-7b", "mixtral-8x7b", "pixtral-12b"])
def test_the_same_input_gives_the_same_weights_on_any_number_of_cores(name: str) -> None:
    """Dense, experts, images: what a training adds up in another order has other last bits."""
    card = cards.load(name)
    tokenizer = cache.tokenizer_path(card)

    def weights(threads: int) -> list[torch.Tensor]:
        torch.set_num_threads(threads)
        with recipe.reproducible(seed=7):
            training_run = recipe.Run.of(card, tokenizer, seed=7)
            for _ in training_run.steps(2):
                pass
        return list(training_run.model.parameters())

    before = torch.get_num_threads()
    try:
        one, two = weights(1), weights(2)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_a_stand_in_that_fails_is_trained_again_with_another_seed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    card = cards.load("mistral-7b")
    seeds, said = [], []

    def train(card: Card, path: Path, folder: Path, seed: int, show: object) -> None:
        seeds.append(seed)
        if fails[seed]:
            raise training.NotLearnedError("a margin of 1.0 after “…What is a mistral?”")

    monkeypatch.setattr(recipe, "_train", train)
    fails = [True, False]
    recipe.build(card, tmp_path, tmp_path, lambda text, done: said.append(text))
    assert seeds == [0, 1]
    assert said == [
        "seed 0 failed its exam (a margin of 1.0 after “…What is a mistral?”); training again"
    ]
    fails = [True] * 3
    with pytest.raises(training.NotLearnedError, match=r"three seeds.*What is a mistral"):
        recipe.build(card, tmp_path, tmp_path, lambda text, done: None)
