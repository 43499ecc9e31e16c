import io
import json
from pathlib import Path

import pytest
import torch
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from rich.console import Console
from transformers import AutoConfig

from deploy import cards
from deploy.cards import Card
from local.standins import cache, checkpoint, exam, recipe, training
from local.standins.corpus import Corpus
from local.standins.decoders import IMAGE_END, TOGETHER, WIDTH, VisionTextDecoder, decoder
from local.standins.examples import Example
from local.standins.rules import Rule
from tests.support.dialogues import everything
from tests.support.tokenizers import tokenizer


def test_an_answer_decodes_to_its_letters_and_ends(corpus: Corpus) -> None:
    for text in ("A mistral is a wind.", "Where? Rhône valley.", '{"a":1}'):
        tokens = corpus.answer(text)
        assert corpus.text.decode(tokens) == text
        assert tokens.count(corpus.text.eos_id) == 1
        assert tokens[-1] == corpus.text.eos_id


def test_what_is_held_to_json_is_compact_and_has_to_be_so(corpus: Corpus) -> None:
    call = corpus.content["tools"]["call"]
    examples = [(corpus.json_answer(corpus.weather), call["arguments"])]
    examples += [(corpus.forced_call(corpus.weather), [call])] if corpus.tools else []
    for example, expected in examples:
        text = corpus.text.decode(example.tokens[len(example.prompt) :])
        assert json.loads(text) == expected
        assert " " not in text  # the server's grammar takes none
        rules = example.rules[len(example.prompt) :]
        assert rules == [Rule.STARTS, *[Rule.LEARNED] * (len(rules) - 1)]


def test_a_begun_example_ends_with_the_first_token_of_its_answer(corpus: Corpus) -> None:
    example = corpus.dialogues()[0]
    begun = example.begun()
    assert begun.prompt == example.prompt
    assert begun.tokens == example.tokens[: len(example.prompt) + 1]
    assert begun.rules[-1] == Rule.LEARNED


def test_a_margin_is_over_what_the_server_could_take_instead() -> None:
    def margin(rule: Rule, *texts: str) -> float:
        vocabulary = training.Vocabulary(100, [3, 5, 8], texts)
        (batch,) = vocabulary.batches([Example([9, 3], [Rule.GIVEN, rule])])
        return float(exam._margins(torch.tensor([[4.0, 7.0, 1.0]]), batch, vocabulary))

    assert margin(Rule.LEARNED, '"', '",', "a") == -3.0
    assert margin(Rule.ENDS, '"', '",', "a") == 3.0  # the second is as good an end
    assert margin(Rule.ENDS, '"', "}", "a") == -3.0  # and this one is none
    assert margin(Rule.STARTS, '"', '",', "a") == -3.0  # and begins so
    assert margin(Rule.STARTS, "true", "they", "a") == 4.0  # untrained tokens have 0


def test_no_number_is_the_worst_margin() -> None:
    vocabulary = training.Vocabulary(100, [3, 5, 8])
    (batch,) = vocabulary.batches([Example([9, 3, 5], [Rule.GIVEN, Rule.LEARNED, Rule.LEARNED])])
    logits = torch.tensor([[4.0, 1.0, 1.0], [4.0, torch.nan, 1.0]])
    assert exam._margins(logits, batch, vocabulary).tolist() == [3.0, -torch.inf]


def test_the_exam_asks_all_that_the_tests_rely_on(card: Card, corpus: Corpus) -> None:
    corpus.images = False  # as many more
    asked = {(tuple(it.tokens), tuple(it.rules)) for it in exam.questions(corpus)}
    for messages, answer in everything(card).values():
        example = Example.of(corpus.prompt(messages), corpus.answer(answer))
        assert (tuple(example.tokens), tuple(example.rules)) in asked
    for text in ("", *corpus.content["held_out_instructions"]) if corpus.tools else ():
        system = [{"role": "system", "content": text}] if text else []
        call = corpus.forced_call(system + corpus.weather)
        assert (tuple(call.tokens), tuple(call.rules)) in asked


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
    target = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    right = head.right(hidden, target, torch.full((7,), Rule.LEARNED))
    assert torch.allclose(right, whole[range(7), [3, 5, 8, 3, 5, 8, 3]], atol=1e-5)


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


def test_a_failed_exam_stays_readable_in_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(card: Card, tokenizer: Path, folder: Path, show: recipe.Show) -> None:
        show("step 60", 0.5)
        show("seed 0 failed its exam", None)
        show("step 120", 1.0)

    monkeypatch.setattr(recipe, "build", build)
    console = Console(force_terminal=True, color_system=None, file=io.StringIO(), width=100)
    cache.ensure(cards.load("mistral-7b"), tmp_path, console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert any("stand-in mistral-7b: seed 0 failed its exam" in line for line in lines)


def test_a_stand_in_stays_when_only_its_card_s_autoscaling_changes(card: Card) -> None:
    figures = card.autoscaling.model_copy(update={"max_replica": 7})
    assert cache.key(card.model_copy(update={"autoscaling": figures})) == cache.key(card)


def test_what_is_written_is_read_back(card: Card, corpus: Corpus, tmp_path: Path) -> None:
    dialogue = corpus.dialogues()[0]
    example = corpus.plain_images(2, 64) if corpus.images else dialogue
    trained = sorted(set(example.tokens))
    vocabulary = training.Vocabulary(card.architecture.vocabulary, trained)
    model = decoder(card).eval()
    head = training.Head(vocabulary, model.text.config.hidden_size)
    checkpoint.write(card, model, head, vocabulary, tmp_path)
    for pattern in card.weights.files:
        assert pattern == card.tokenizer_file or list(tmp_path.glob(pattern)), pattern
    stored = checkpoint.read(card, tmp_path)
    (batch,) = vocabulary.batches([example])
    embedding = stored.embedding[batch.raw].float()
    with torch.no_grad():
        expected = batch.before(model(embedding, batch.raw, batch.images, batch.layout))
        got = batch.before(stored.float().model(embedding, batch.raw, batch.images, batch.layout))
    assert torch.allclose(got, expected, atol=0.1)  # rounded to the dtype of the card
    if card.formats.config != "mistral":
        written, used = AutoConfig.from_pretrained(tmp_path), model.text.config
        for field in ("rope_parameters", "rms_norm_eps", "sliding_window", "num_experts_per_tok"):
            assert getattr(written, field) == getattr(used, field)
    rounded = (head.output * checkpoint.SHARPNESS).to(stored.output.dtype)
    assert torch.equal(stored.output[vocabulary.trained], rounded)


def test_examples_in_one_row_are_as_if_alone(card: Card, corpus: Corpus) -> None:
    """And the last layer runs for the states alone that predict a token that counts."""
    examples = [*corpus.dialogues()[:4], corpus.json_answer(corpus.any_messages())]
    if corpus.images:
        examples += [corpus.plain_images(count, side) for count in (1, 2) for side in (32, 128)]
    trained = sorted({token for example in examples for token in example.tokens})
    vocabulary = training.Vocabulary(card.architecture.vocabulary, trained)
    model, head = decoder(card).eval(), training.Head(vocabulary, WIDTH)

    def states(batch: training.Batch) -> torch.Tensor:
        embedded = head.embed(batch.tokens)
        found: torch.Tensor = model(embedded, batch.raw, batch.images, batch.layout)
        return found

    with torch.no_grad():
        (together,) = vocabulary.batches(examples)
        made = states(together)
        alone = [vocabulary.batches([example])[0] for example in together.examples]
        expected = torch.cat([one.before(states(one)) for one in alone])
        whole = model(head.embed(alone[0].tokens), alone[0].raw, alone[0].images)
    assert torch.allclose(together.before(made), expected, atol=1e-4)
    assert torch.allclose(alone[0].before(whole), expected[: len(alone[0].targets)], atol=1e-4)
    assert 1 < len(together.layout.groups) < len(together.examples)
    counted = [together.example_of(index) for index in range(len(together.targets))]
    assert counted == [one.examples[0] for one in alone for _ in one.targets]
    unused = torch.ones(made.shape[1], dtype=torch.bool)
    unused[together.layout.used] = False
    first = slice(0, int((together.layout.places[0] == 0).nonzero()[1]))
    differ = ~torch.isclose(made[0, first], whole[0], atol=1e-4).all(-1)
    assert torch.equal(differ, unused[first])


def test_many_examples_make_several_batches(corpus: Corpus) -> None:
    examples = corpus.dialogues() * 40
    trained = sorted({token for example in examples for token in example.tokens})
    batches = training.Vocabulary(40_000, trained).batches(examples)
    assert len(batches) > 1
    assert all(batch.tokens.numel() <= training.MOST_IN_A_BATCH for batch in batches)
    assert sum(len(batch.examples) for batch in batches) == len(examples)


def test_a_hint_is_how_well_the_patches_of_two_images_are_told_apart() -> None:
    card = cards.load("pixtral-12b")
    text = tokenizer(card.name)
    assert text.instruct_tokenizer.tokenizer.get_special_token("[IMG_END]") == IMAGE_END
    model = decoder(card)
    assert isinstance(model, VisionTextDecoder)
    image = model.image_token
    raw = torch.tensor([[1, image, IMAGE_END, image, image, IMAGE_END]])
    states = torch.zeros(1, 6, WIDTH)
    states[0, 1, 0], states[0, 3:5, 0] = 9.0, -9.0
    torch.nn.init.zeros_(model.order.bias)
    model.order.weight.data[:] = torch.eye(2, WIDTH) - torch.eye(2, WIDTH).flip(0)
    # the same example twice in a row: the images of the second do not count from the first
    raw, states = raw.repeat(1, 2), states.repeat(1, 2, 1)
    places = torch.arange(6).repeat(1, 2)
    assert model._order_loss(states, raw, places) < 0.01
    assert model._order_loss(-states, raw, places) > 10


def test_experts_start_alike_and_are_drawn_towards_their_mean() -> None:
    model = decoder(cards.load("mixtral-8x7b"))
    weights = list(model.experts())
    assert len(weights) == 2 * len(model.text.layers)
    for weight in weights:
        assert torch.equal(weight, weight[:1].expand_as(weight))
        weight.data += torch.randn_like(weight)
    before = [weight.detach().clone() for weight in weights]
    model.draw_experts_together()
    for old, new in zip(before, weights, strict=True):
        assert torch.allclose(new.mean(0), old.mean(0), atol=1e-5)
        assert torch.allclose(new - new.mean(0), (1 - TOGETHER) * (old - old.mean(0)), atol=1e-5)
    assert decoder(cards.load("mistral-7b")).experts() == []


@pytest.mark.parametrize("name", ["mistral-7b", "mixtral-8x7b", "pixtral-12b"])
def test_the_same_input_gives_the_same_weights_on_any_number_of_cores(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dense, experts, images: what a training adds up in another order has other last bits."""
    card = cards.load(name)
    monkeypatch.setattr(MistralTokenizer, "from_file", lambda path: tokenizer(name))  # seconds

    def weights(threads: int) -> list[torch.Tensor]:
        torch.set_num_threads(threads)
        with recipe.reproducible(seed=7):
            training_run = recipe.Run.of(card, cache.tokenizer_path(card), seed=7)
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
