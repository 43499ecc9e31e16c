"""Images as data URLs of an exact size, no two alike.

Promises: small pictures, PNG, of noise, that weigh what they are asked to: what they have beside
the picture is in a chunk that decoders pass over. So a model has little to do with any of them, and
what differs with the size is the way of the bytes. vLLM knows none of them from before.
"""

import base64
import random
import struct
import zlib

SIDE = 40  # pixels; as many bytes of noise as fit in the smallest data URL asked for
HEAD = "data:image/png;base64,"


def data_url(size: int, seed: int) -> str:
    """A data URL of `size` bytes, less up to three; the same for the same seed."""
    noise = random.Random(seed)
    lines = b"".join(b"\0" + noise.randbytes(SIDE * 3) for _ in range(SIDE))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    picture = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", _stored(lines))
    end = _chunk(b"IEND", b"")
    most = (size - len(HEAD)) // 4 * 3
    filling = most - len(picture) - len(end) - len(_chunk(b"pADd", b""))
    if filling < 0:
        raise ValueError(f"no data URL of {size} bytes holds a picture of {SIDE} pixels")
    whole = picture + _chunk(b"pADd", bytes(filling)) + end
    return HEAD + base64.b64encode(whole).decode()


def _stored(data: bytes) -> bytes:
    return zlib.compress(data, level=0)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
