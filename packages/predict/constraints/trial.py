"""Tries one constraint on the output: compiles it and steps through it with the model's vocabulary.

Promises: refuses what xgrammar cannot read, what takes longer than allowed to read or compile, and
what has a slow mask on one of the paths walked. A constraint that crashes xgrammar or never ends
does so here too: process.py runs this in a fork.
"""

import json
import math
import random
import re
import time
from collections.abc import Callable
from typing import Any

from predict.constraints import categories

# vLLM repeats both: reading in the API server's event loop, compiling in a thread of the engine.
READ_SECONDS = 0.02
COMPILE_SECONDS = 3.5
# For one mask at most, and for a token on average: the next token of every request waits for it.
MASK_SECONDS = 0.1
MEAN_SECONDS = 0.08
WALK_SECONDS = 0.25  # for a path's masks, unless STEPS take less
CLEAR = 2  # times the limit is refused for good; less may be due to a busy machine
STEPS = 64

KINDS = {  # → methods of xgrammar's Grammar and GrammarCompiler
    "json_schema": ("from_json_schema", "compile_json_schema"),
    "regex": ("from_regex", "compile_regex"),
    "ebnf": ("from_ebnf", "compile_grammar"),
    "lark": ("from_lark", "compile_lark"),
    "structural_tag": ("from_structural_tag", "compile_structural_tag"),
}

PLACE = re.compile(r"^\[[\d:]+\] \S+:\d+: ")  # in xgrammar's source

Json = dict[str, Any]


class TrialError(ValueError):
    """Why a constraint is refused: the end of a sentence about it. `keep`: another trial would
    refuse it too."""

    def __init__(self, said: str, keep: bool = True) -> None:
        super().__init__(said)
        self.keep = keep


class Trial:
    """What a fork does with a constraint."""

    def __init__(self, setup: Json) -> None:
        import xgrammar

        self.xgrammar = xgrammar
        info = xgrammar.TokenizerInfo.deserialize_json(setup["tokenizer"])
        self.compiler = xgrammar.GrammarCompiler(info, max_threads=1)  # its cache saves what one
        # grammar has twice, as in vLLM
        self.options: Json = {}
        if setup["separators"]:  # as vLLM does with disable_any_whitespace
            self.options = {"any_whitespace": False, "separators": tuple(setup["separators"])}
        self.mask = xgrammar.allocate_token_bitmask(1, info.vocab_size)
        self.bits = self.mask.numpy().view("uint8")
        tokens = info.decoded_vocab
        # Short tokens visit the most states, and repeating one keeps open what could end.
        short = [number for number, token in enumerate(tokens) if len(token) == 1]
        self.short = self.mask.numpy().view("uint8") * 0
        for number in short:
            self.short[0][number // 8] |= 1 << number % 8
        self.mask_seconds = 0.0  # of the slowest mask
        self.walk(self.compiler.compile_regex("a*"), 0)  # does what is slow only once
        self.mask_seconds = 0.0

    def __call__(self, kind: str, text: str, has_read: Callable[[], None]) -> None:
        read, compile_ = KINDS[kind]
        options = self.options if kind == "json_schema" else {}
        arguments: list[Any] = [text]
        if kind == "structural_tag" and "structures" in (tag := json.loads(text)):
            arguments = self._earlier(tag)
        self._within("read", READ_SECONDS, getattr(self.xgrammar.Grammar, read), *arguments)
        has_read()
        grammar = self._within(
            "compile",
            COMPILE_SECONDS,
            lambda: getattr(self.compiler, compile_)(*arguments, **options),
        )
        for path in range(3):
            self.walk(grammar, path)

    def prepare(self, schema: Json) -> None:
        """Compiles a schema whose parts others share; the compiler's cache keeps them."""
        categories.table()  # kept too
        self.compiler.compile_json_schema(json.dumps(schema), **self.options)

    def _earlier(self, tag: Json) -> list[Any]:
        """The arguments for an earlier form of structural tags, which vLLM and xgrammar also
        take."""
        item = self.xgrammar.StructuralTagItem
        try:
            return [
                [
                    item(begin=one["begin"], schema=json.dumps(one["schema"]), end=one["end"])
                    for one in tag["structures"]
                ],
                tag["triggers"],
            ]
        except (TypeError, ValueError, LookupError):
            said = "cannot be read: it takes 'triggers', and 'structures' of begin, schema and end"
            raise TrialError(said) from None

    def _within(self, what: str, most: float, do: Callable[..., Any], *arguments: Any) -> Any:
        start = time.process_time()
        try:
            done = do(*arguments)
        except MemoryError:
            raise
        except Exception as error:
            raise TrialError(f"cannot be followed: {shortened(str(error))}") from None
        if (took := time.process_time() - start) > most:
            said = f"takes {took * 1000:.0f} ms to {what}; at most {most * 1000:g} ms are allowed"
            raise TrialError(said, keep=took > CLEAR * most)
        return done

    def walk(self, grammar: Any, path: int) -> None:
        """Steps along a path. 0: a short token again and again; 1: random short tokens; 2: random
        tokens."""
        matcher = self.xgrammar.GrammarMatcher(grammar)
        chance = random.Random(path)
        token, walked = None, 0.0
        for step in range(1, STEPS + 1):
            took = self.seconds(matcher)
            walked += took
            self.mask_seconds = max(self.mask_seconds, took)
            if took > MASK_SECONDS:
                raise slow(took, MASK_SECONDS)
            if walked > WALK_SECONDS:
                if walked > step * MEAN_SECONDS:
                    raise slow(walked / step, MEAN_SECONDS)
                return
            token = self._choose(path, token, chance)
            if token is None or not matcher.accept_token(token) or matcher.is_terminated():
                return

    def seconds(self, matcher: Any) -> float:
        """CPU time of the next mask. Other work on the same core makes it look longer, so a mask
        that is a little too slow is measured again."""
        found = math.inf
        for _ in range(3):
            start = time.process_time()
            matcher.fill_next_token_bitmask(self.mask)
            found = min(found, time.process_time() - start)
            if not MASK_SECONDS < found <= CLEAR * MASK_SECONDS:
                break
        return found

    def _choose(self, path: int, last: int | None, chance: random.Random) -> int | None:
        if path == 0 and last is not None and self._allowed(last):
            return last
        allowed = self.bits[0]
        if path < 2 and (short := allowed & self.short[0]).any():
            allowed = short
        places = allowed.nonzero()[0]
        if not len(places):
            return None
        place = int(places[0] if path == 0 else chance.choice(places))
        byte = int(allowed[place])
        bits = [bit for bit in range(8) if byte >> bit & 1]
        return place * 8 + (bits[0] if path == 0 else chance.choice(bits))

    def _allowed(self, token: int) -> bool:
        return bool(self.bits[0][token // 8] >> token % 8 & 1)


def slow(took: float, most: float) -> TrialError:
    return TrialError(
        f"takes the engine {took * 1000:.1f} ms for a token; at most {most * 1000:g} ms are "
        "allowed",
        keep=took > CLEAR * most,
    )


def shortened(text: str) -> str:
    line = PLACE.sub("", text.strip().splitlines()[-1] if text.strip() else "unreadable")
    return line if len(line) <= 150 else f"{line[:149]}…"
