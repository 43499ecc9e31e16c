"""Every card × SOURCE renders to what Truss loads and builds, and vLLM's own parser accepts."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from predict.admission import HEALTH, LIVENESS

from deploy import cards
from deploy.cards import Card
from deploy.config import planned, render, vllm_version
from deploy.options import SOURCES, Options
from deploy.paths import ROOT
from deploy.start_command import serve_arguments, start_command
from local.truss import stage


def has(card: Card, source: str) -> bool:
    """Whether all that a card serves is there: own weights and adapters may lie outside the hub."""
    own = [card.own_weights.remote] if card.own_weights else []
    remotes = [*own, *(card.adapters.remote(name) for name in card.adapters.sources)]
    return source == "bdn" or all(remote.on_hub for remote in remotes)


RENDERED = {
    f"{card.name}-{source}": (card, Options(source))
    for card, source in itertools.product(cards.load_all(), SOURCES)
    if has(card, source)
}
every_config = pytest.mark.parametrize(("card", "choices"), RENDERED.values(), ids=RENDERED)


@pytest.fixture(scope="module")
def parser() -> Any:
    """vLLM's own parser of `vllm serve`."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    return make_arg_parser(FlexibleArgumentParser())


def flags(arguments: list[str]) -> list[str]:
    return [word for word in arguments if word.startswith("--")]


def test_the_committed_config_is_what_the_default_renders_to() -> None:
    expected = render(cards.load(cards.DEFAULT_MODEL), Options())
    assert (ROOT / "config.yaml").read_text() == expected, "run: make config MODEL=mistral-7b"


# `truss image build-context` for each folder: to import truss takes longer than to build.
BUILD = """
import sys
from truss.cli.cli import truss_cli
for folder in sys.argv[1:]:
    print(folder, file=sys.stderr)
    words = ["image", "build-context", f"{folder}/context", f"{folder}/truss"]
    truss_cli(words, standalone_mode=False)
"""


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The name of each of RENDERED → its build context."""
    folders = {}
    for name, (card, choices) in RENDERED.items():
        folders[name] = folder = tmp_path_factory.mktemp("built")
        (folder / "truss").mkdir()
        stage(render(card, choices), folder / "truss")
    build = subprocess.run(
        [sys.executable, "-c", BUILD, *folders.values()],
        env={**os.environ, "TRUSS_NO_UPDATE_CHECK": "1"},  # it would ask the network
        capture_output=True,
        text=True,
    )
    assert build.returncode == 0, build.stderr
    return {name: folder / "context" for name, folder in folders.items()}


@every_config
def test_truss_builds_it_with_its_own_command(
    card: Card, choices: Options, contexts: dict[str, Path]
) -> None:
    context = contexts[f"{card.name}-{choices.source}"]
    supervisord = (context / "supervisord.conf").read_text()
    for flag in flags(serve_arguments(start_command(render(card, choices)))):
        assert flag in supervisord
    assert (context / "packages" / "predict" / "app.py").is_file()
    dockerfile = (context / "Dockerfile").read_text()
    assert f"FROM vllm/vllm-openai:v{vllm_version()} " in dockerfile
    assert 'RUN  python3 -c "import compileall, sysconfig; ' in dockerfile


@every_config
def test_vllm_accepts_the_start_command_flag_by_flag(
    card: Card, choices: Options, parser: Any
) -> None:
    from vllm.entrypoints.launchers.cli_args import validate_parsed_serve_args

    arguments = serve_arguments(start_command(render(card, choices)))
    known = set(parser._option_string_actions)
    unknown = [flag for flag in flags(arguments) if flag.split(".")[0] not in known]
    assert unknown == []
    parsed = parser.parse_args(arguments)
    validate_parsed_serve_args(parsed)
    assert parsed.served_model_name == card.names
    assert parsed.max_model_len == planned(card, choices).context
    assert parsed.tokenizer_mode == "mistral"
    assert parsed.enable_auto_tool_choice == card.features.tools
    assert parsed.tool_call_parser == ("mistral" if card.features.tools else None)
    images = {"image": card.features.images} if card.features.images else {}
    assert parsed.limit_mm_per_prompt == images
    assert parsed.middleware == ["predict.app.Gateway"]
    assert parsed.max_num_queued_reqs > parsed.max_num_seqs
    mounted = card.weights.mount_location
    if card.formats.config == "mistral" and "config.json" not in card.weights.files:
        mounted = f"/tmp/{card.name}"  # `completed` in packages/start/prepare.sh
    repo = card.own_weights.remote.path if card.own_weights else card.weights.repo
    assert parsed.model_tag == (mounted if choices.source == "bdn" else repo)


def test_an_unknown_flag_would_be_noticed(parser: Any) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(["/models/m", "--no-such-flag", "1"])


@every_config
def test_nothing_in_the_start_command_trips_supervisord(card: Card, choices: Options) -> None:
    command = start_command(render(card, choices))
    assert not [trap for trap in ("%", " ;", " #") if trap in command]


@every_config
def test_the_parts_a_deployment_needs(card: Card, choices: Options) -> None:
    config = yaml.safe_load(render(card, choices))
    server = config["docker_server"]
    assert config["base_image"]["image"] == f"vllm/vllm-openai:v{vllm_version()}"
    token = r'HF_TOKEN="\$\(.*\)" && export HF_TOKEN && ' if choices.source == "hub" else ""
    whole = "(completed [^&]* && )?"
    start = rf"exec sh -c '\. /packages/start/prepare.sh && {token}{whole}exec vllm serve "
    assert re.match(start, server["start_command"])
    assert server["server_port"] == 8000
    assert server["predict_endpoint"] == "/v1/chat/completions"
    assert (server["readiness_endpoint"], server["liveness_endpoint"]) == (HEALTH, LIVENESS)
    assert "openai-compatible" in config["model_metadata"]["tags"]
    assert config["model_metadata"]["example_model_input"] == card.example_input
    assert config["environment_variables"]["VLLM_MEDIA_CONNECTOR"] == "predict"
    health = config["runtime"]["health_checks"]
    assert health["startup_threshold_seconds"] >= 1800  # Baseten's own default
    assert health["stop_traffic_threshold_seconds"] == 60
    assert health["restart_threshold_seconds"] == 120
    if choices.source == "bdn":
        own, weights = card.own_weights, config["weights"][0]
        repo = f"hf://{card.weights.repo}@{card.weights.revision}"
        assert weights["source"] == (own.source if own else repo)
        assert weights["allow_patterns"] == (own or card.weights).files
        if own is None:
            assert weights["auth"]["auth_secret_name"] == "hf_access_key"
        assert "secrets" not in config
    else:
        assert "weights" not in config
        assert config["secrets"] == {"hf_access_key": None}
        asked = "/secrets/hf_access_key "
        if card.own_weights is None:
            asked += f"{card.weights.repo} {card.weights.revision} {card.weights.files[0]}"
        assert f"$(python3 -m predict.hub_token {asked}" in server["start_command"]


def restrictions(card: Card, choices: Options, folder: Path) -> Any:
    """What Truss itself reads of what the container may reach, and would send; None: everything."""
    from truss.base.truss_config import TrussConfig

    config = folder / "config.yaml"
    config.write_text(render(card, choices))
    return (
        TrussConfig.from_yaml(config).to_dict(verbose=False)["runtime"].get("egress_restrictions")
    )


@every_config
def test_a_text_model_with_mirrored_weights_reaches_nothing(
    card: Card, choices: Options, tmp_path: Path
) -> None:
    closed = choices.source == "bdn" and card.images is None
    nothing: Any = {"ip_allow_list": [], "fqdn_allow_list": []}  # Truss: blocks all
    assert restrictions(card, choices, tmp_path) == (nothing if closed else None)


@pytest.mark.parametrize(
    ("hosts", "allowed", "addresses", "names"),
    [
        ("none", "", [], []),
        ("None", "", [], []),
        ("", "", [], []),
        ("a.example, .b.example", "a.example,.b.example", [], ["a.example", "*.b.example"]),
        ("1.1.1.1,A.example", "1.1.1.1,a.example", ["1.1.1.1"], ["a.example"]),
    ],
)
def test_image_hosts_are_all_that_is_reached(
    hosts: str, allowed: str, addresses: list[str], names: list[str], tmp_path: Path
) -> None:
    card = cards.load("pixtral-12b")
    choices = Options(image_hosts=hosts)
    config = yaml.safe_load(render(card, choices))
    assert config["environment_variables"]["ALLOWED_IMAGE_HOSTS"] == allowed
    expected = {"ip_allow_list": addresses, "fqdn_allow_list": names}
    assert restrictions(card, choices, tmp_path) == expected
    hub = Options("hub", image_hosts=hosts)  # which must be reached, beside the hosts
    assert restrictions(card, hub, tmp_path) is None
    assert addresses_read(config) == tuple(word for word in allowed.split(",") if word)


def addresses_read(config: Any) -> Any:
    """The hosts as the container will read them."""
    from predict.images import urls

    return urls.read_policy(config["environment_variables"]).hosts


def test_the_limits_for_images_are_the_card_s() -> None:
    card = cards.load("pixtral-12b")
    config = yaml.safe_load(render(card, Options()))
    variables = config["environment_variables"]
    assert card.images is not None
    assert variables["VLLM_MAX_IMAGE_PIXELS"] == str(card.images.pixels)
    assert variables["VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB"] == str(card.images.megabytes)
    assert variables["VLLM_IMAGE_FETCH_TIMEOUT"] == str(card.images.fetch_seconds)
    assert "ALLOWED_IMAGE_HOSTS" not in variables
    assert variables["MALLOC_MMAP_THRESHOLD_"] == "131072"
    assert variables["RES_OPTIONS"] == "timeout:2 attempts:2"


def test_the_secret_may_have_another_name() -> None:
    card = cards.load("pixtral-12b")
    for source in SOURCES:
        text = render(card, Options(source, secret="my-token"))
        assert "my-token" in text
        assert "hf_access_key" not in text
