"""What of a request may come into a log."""

import json
import logging
import logging.config
import os
import sys
import warnings
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pydantic
import pytest
from predict.logs import redact

from deploy.paths import ROOT
from tests.support.load import PATIENCE_SECONDS

SECRET = "marker-5d2f"


class Answer(pydantic.BaseModel):
    message: str = SECRET


def logged(*args: Any, name: str = "vllm", msg: str = "%s", **more: Any) -> str:
    record = logging.LogRecord(name, logging.ERROR, __file__, 1, msg, args, None)
    vars(record).update(more)
    assert redact(record)
    return logging.Formatter().format(record)


def failure() -> BaseException:
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as error:
            raise RuntimeError(SECRET) from error
    except RuntimeError as error:
        return error


def test_an_exception_is_logged_by_place_and_type() -> None:
    error = failure()
    text = logged("failed", exc_info=(type(error), error, error.__traceback__))
    assert SECRET not in text
    assert text.startswith("failed\nTraceback")
    assert "in failure" in text
    assert text.index("builtins.KeyError") < text.index("which led to:")
    assert text.endswith("builtins.RuntimeError")


@pytest.mark.parametrize("value", [KeyError(SECRET), Answer()])
def test_an_answer_is_logged_by_type(value: Any) -> None:
    assert logged(5, value, msg="a %s and %s") == f"a 5 and <{type(value).__name__}>"


def test_what_reads_requests_complains_in_its_own_words() -> None:
    for name in ("vllm.tokenizers.mistral", "vllm.parser.mistral"):
        assert logged(SECRET, 5, name=name, msg="cut %s to %d") == "cut <str> to 5"


def test_a_batch_that_failed_is_not_logged() -> None:
    from vllm.logging_utils import dump_input

    said = f"SchedulerOutput(sampling_params=SamplingParams(stop=['{SECRET}']))"
    msg = "Dumping scheduler output for model execution: %s"
    for level in (logging.DEBUG, logging.ERROR):
        text = logged(said, name=dump_input.logger.name, msg=msg, levelno=level)
        assert text == "Dumping scheduler output for model execution: <str>"


def test_other_lines_are_as_they_were() -> None:
    assert logged("a?b", 5, msg="%s has %d") == "a?b has 5"
    assert logged(msg="100 %") == "100 %"


def test_a_query_is_not_logged() -> None:
    request = '%s - "%s %s HTTP/%s" %d'
    given = ("1.2.3.4", "GET", f"/health?key={SECRET}", "1.1", 200)
    text = logged(*given, name="uvicorn.access", msg=request)
    assert text == '1.2.3.4 - "GET /health HTTP/1.1" 200'


def test_a_warning_is_logged_by_place_and_category() -> None:
    text = logged(f"/a/b.py:5: UserWarning: {SECRET}\n  f(x)\n", name="py.warnings")
    assert text == "/a/b.py:5: UserWarning"


def log_all_kinds(file: Path) -> None:
    """For a process of its own: what the configuration makes of each kind of line."""
    import vllm.logger  # noqa: F401  # which configures logging, too

    output = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = (os.fdopen(each, "w", buffering=1) for each in (1, 2))
    warnings.simplefilter("default")
    logging.config.dictConfig(json.loads((ROOT / "packages/predict/logging.json").read_text()))
    warnings.warn(SECRET, stacklevel=1)
    logging.getLogger("vllm.a").info("told %s", "you")
    access = ("a", "GET", f"/?{SECRET}", "1.1", 200)
    logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', *access)
    try:
        raise ValueError(SECRET)
    except ValueError:
        logging.getLogger("elsewhere").exception("failed")


def test_the_configuration_works_in_a_process_of_its_own(tmp_path: Path) -> None:
    # a fork, for to import vLLM once more takes 4 s
    process = get_context("fork").Process(target=log_all_kinds, args=(tmp_path / "log",))
    process.start()
    process.join(PATIENCE_SECONDS)
    process.kill()
    text = (tmp_path / "log").read_text()
    assert process.exitcode == 0, text
    assert SECRET not in text
    for line in ("told you", '"GET / HTTP/1.1" 200', "UserWarning", "failed", "ValueError"):
        assert line in text


def test_the_lines_are_vllm_s_own() -> None:
    from vllm.logger import DEFAULT_LOGGING_CONFIG

    ours = json.loads((ROOT / "packages/predict/logging.json").read_text())
    theirs = DEFAULT_LOGGING_CONFIG
    assert ours["formatters"]["vllm"]["format"] == theirs["formatters"]["vllm"]["format"]
    assert ours["formatters"]["vllm"]["datefmt"] == theirs["formatters"]["vllm"]["datefmt"]
    assert ours["loggers"]["vllm"]["propagate"] == theirs["loggers"]["vllm"]["propagate"]
