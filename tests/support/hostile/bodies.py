"""Bodies that are not requests, for any route, and a request that is sent oddly."""

import json
import zlib
from collections.abc import Iterator
from typing import Any

from tests.support.hostile.case import JSON, Case

# every route answers this, with a brace in front
VALID = b'"prompt": "hi", "input": "hi", "messages": [{"role": "user", "content": "hi"}]}'

NOT_A_REQUEST: dict[str, bytes] = {
    "nothing": b"",
    "white space": b" \n\t",
    "a null": b"null",
    "a number": b"5",
    "a text": b'"hi"',
    "a list": b"[]",
    "an empty object": b"{}",
    "an open brace": b"{",
    "a form": b"prompt=hi&max_tokens=5",
    "XML": b"<prompt>hi</prompt>",
    "no UTF-8": b"\xff\xfe\xfa",
    "no UTF-8 in a value": b"{" + VALID.replace(b"hi", b"\xff"),
    "no UTF-8 in a name": b'{"\xff": 1}',
    "UTF-16": json.dumps({"prompt": "hi"}).encode("utf-16"),
    "UTF-32": json.dumps({"prompt": "hi"}).encode("utf-32"),
    "NUL bytes": b"\0" * 100,
    "a NUL in a name": b'{"a\\u0000b": 1, "prompt": "hi"}',
    "an overlong encoding": b'{"prompt": "\xc0\xaf"}',
    "half a surrogate pair": b"{" + VALID.replace(b"hi", b"\\ud800"),
    "half a pair in a name": b'{"\\ud800": 1}',
    "half a pair in model": b'{"model": "\\ud800", "prompt": "hi", "messages": [], "input": "hi"}',
    "a trailing comma": b'{"prompt": "hi",}',
    "two objects": b'{"prompt": "hi"}{"prompt": "hi"}',
    "a comment": b'{"prompt": "hi" /* hello */}',
    "single quotes": b"{'prompt': 'hi'}",
    "Python": b'{"prompt": "hi", "stream": True, "user": None}',
    "a control character": b'{"prompt": "a\x01b"}',
    "NaN": b'{"temperature": NaN, ' + VALID,
    "Infinity": b'{"top_p": -Infinity, ' + VALID,
    "1e999": b'{"temperature": 1e999, ' + VALID,
    "a number of 5000 digits": b'{"prompt": "hi", "max_tokens": ' + b"9" * 5000 + b"}",
    "a number of 1 MB": b'{"prompt": "hi", "max_tokens": ' + b"9" * 1_000_000 + b"}",
    "100 000 open brackets": b"[" * 100_000,
    "100 000 open braces": b'{"a":' * 100_000,
    "deep and closed": b'{"prompt": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "500 deep": b'{"messages": ' + b"[" * 500 + b"]" * 500 + b"}",
    "900 objects deep": b'{"messages": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
    "50 000 names": json.dumps({f"n{i}": i for i in range(50_000)}).encode(),
    "a name of 1 MB": b'{"' + b"n" * 1_000_000 + b'": 1}',
    "an unfinished text of 1 MB": b'{"prompt": "' + b"x" * 1_000_000,
    "half a million empty lists": b'{"messages": [' + b"[]," * 500_000 + b"[]]}",
    "half a million nulls": b'{"messages": [' + b"null," * 300_000 + b"null]}",
    "half a million empty objects as input": b'{"input": [' + b"{}," * 500_000 + b"{}]}",
}


def transported(path: str, content: bytes) -> Iterator[Case]:
    """The valid request, oddly sent."""

    def case(name: str, headers: dict[str, str], **more: Any) -> Case:
        return Case(f"{path} {name}", path, headers=headers, **{"content": content, **more})

    def encoded(name: str) -> dict[str, str]:
        return {**JSON, "Content-Encoding": name}

    yield case("gzipped", encoded("gzip"), content=zlib.compress(content, wbits=31))
    yield case("said to be gzipped", encoded("gzip"))
    yield case("of an unknown encoding", encoded("x"))
    yield case("in pieces", JSON, chunked=True)
    yield case("as a form", {"Content-Type": "multipart/form-data; boundary=a"})
    yield case("as text", {"Content-Type": "text/plain; charset=utf-16"})
    yield case("without a type", {})
    yield case("by GET", JSON, method="GET", content=b"")
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        yield case(f"by {method}", JSON, method=method)
    for name in ("X-Request-Id", "X-data-parallel-rank", "X-Vllm-Priority", "X-Session-ID"):
        yield case(f"with {name}", {**JSON, name: "-99999999999999999999"})
    yield case("with a header of 6 kB", {**JSON, "X-Request-Id": "x" * 6000})
    yield case("that asks for metrics", {**JSON, "endpoint-load-metrics-format": "x\ty"})
    yield case("of 40 MB", JSON, content=b'{"prompt": "' + b"x" * 40_000_000 + b'"}')


def in_pieces(body: bytes) -> Iterator[bytes]:
    """For httpx, which copies the rest of a large body for each piece that it sends."""
    return (body[i : i + 65536] for i in range(0, len(body), 65536))
