import ast
import shlex
import subprocess

import hypothesis
from hypothesis import strategies as st

from deploy.start_command import argument, quoted, serve_arguments

WORDS = ['{"k": "v"}', "50%", "a;b&c|d", "$HOME", "$(id)", "`id`", "*", "~", "it's", "é ü"]
WORDS += ["%(x)s", ""]


def test_words_reach_vllm_as_they_were() -> None:
    """Of a real sh, and of supervisord, which splits and expands before sh does."""
    percent = 'percent="$(printf "\\045")"'  # as in packages/start/prepare.sh
    given = " ".join(map(quoted, WORDS))
    line = f"exec sh -c '{percent}; python3 -c \"import sys; print(sys.argv[1:])\" {given}'"
    for words in (shlex.split(line % {})[1:], ["sh", "-c", line]):
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert ast.literal_eval(done.stdout) == WORDS


@hypothesis.given(st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20))
@hypothesis.settings(max_examples=50)
def test_what_is_quoted_is_read_again(word: str) -> None:
    command = f"exec sh -c 'exec vllm serve /models/m --flag {quoted(word)}'"
    assert serve_arguments(command) == ["/models/m", "--flag", word]


def test_the_last_value_of_a_flag_counts_however_it_is_written() -> None:
    command = "exec sh -c 'exec vllm serve m --max-model-len 1 --max_model_len=2 --dtype x'"
    assert argument(command, "--max-model-len") == "2"
    assert argument(command, "--dtype") == "x"
    assert argument(command, "--seed") is None
