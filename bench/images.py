"""Images as data URLs of an exact size, all different.

Promises: small PNG pictures of noise, padded to the requested size by a chunk that decoders skip.
So none of them is much work for a model, and what varies with the size is the cost of moving the
bytes. None is in vLLM's cache.
"""

import base64
import io
import random

from PIL import Image
from PIL.PngImagePlugin import PngInfo

SIDE = 40  # pixels; as much noise as fits in the smallest data URL requested
HEAD = "data:image/png;base64,"


def data_url(size: int, seed: int) -> str:
    """A data URL of `size` bytes, or up to three less; the same for the same seed."""
    noise = random.Random(seed).randbytes(SIDE * SIDE * 3)
    picture = Image.frombytes("RGB", (SIDE, SIDE), noise)
    filling = (size - len(HEAD)) // 4 * 3 - len(_png(picture, 0))
    if filling < 0:
        raise ValueError(f"no data URL of {size} bytes holds a picture of {SIDE} pixels")
    return HEAD + base64.b64encode(_png(picture, filling)).decode()


def _png(picture: Image.Image, filling: int) -> bytes:
    """Adds that many bytes that decoders skip."""
    chunks, file = PngInfo(), io.BytesIO()
    chunks.add(b"paDd", bytes(filling))
    picture.save(file, "PNG", compress_level=0, pnginfo=chunks)
    return file.getvalue()
