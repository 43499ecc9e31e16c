"""Reads the body of a request, within its limit and with room for it (predict/memory.py).

Refuses, before reading any of it, a body that its headers declare too long or compressed.
"""

from predict.asgi import Receive, Scope, TooLongError, content_length, header, read_body
from predict.errors import RequestError, shortened
from predict.memory import PACE, READ_SECONDS, BodyRoom, BusyError
from predict.requests.routes import COMPLETIONS
from predict.settings import RequestLimits

TEXT = frozenset([COMPLETIONS, "/detokenize"])  # routes that take no image


async def read(scope: Scope, receive: Receive, limits: RequestLimits, room: BodyRoom) -> bytes:
    encoding = header(scope, b"content-encoding").decode("latin-1")
    if encoding not in ("", "identity"):
        shown = shortened(encoding, 40)
        raise RequestError(f"the body's Content-Encoding is {shown!r}; send it as it is", None, 415)
    # without images, a body may have only as many bytes as text may
    text = scope["path"] in TEXT
    sizes = (limits["body_bytes"], limits["text_bytes"] if text else None)
    most = min((size for size in sizes if size is not None), default=None)
    length = content_length(scope)
    try:
        if most is not None and length is not None and length > most:
            raise TooLongError
        expected = (most or 0) if length is None else length
        async with room.arriving(receive, 0 if text else expected) as coming:
            return await read_body(coming, most)
    except TooLongError:
        said = f"the body is too large; at most {most} bytes are allowed"
        raise RequestError(said, None, 413) from None
    except BusyError as error:
        raise RequestError(str(error), None, 503) from None
    except TimeoutError:
        said = (
            f"the body came too slowly: it has {READ_SECONDS} s, and while others wait for its "
            f"slot or its memory {PACE >> 20} MB a second must come"
        )
        raise RequestError(said, None, 408) from None
