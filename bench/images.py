"""Images as data URLs of an exact size, no two alike.

Promises: small pictures, PNG, of noise, that weigh what they are asked to: what they have beside
the picture is in a chunk that decoders pass over. So a model has little to do with any of them, and
what differs with the size is the way of the bytes. vLLM knows none of them from before.
"""

import base64
import io
import random

from PIL import Image
from PIL.PngImagePlugin import PngInfo

SIDE = 40  # pixels; as many bytes of noise as fit in the smallest data URL asked for
HEAD = "data:image/png;base64,"


def data_url(size: int, seed: int) -> str:
    """A data URL of `size` bytes, less up to three; the same for the same seed."""
    noise = random.Random(seed).randbytes(SIDE * SIDE * 3)
    picture = Image.frombytes("RGB", (SIDE, SIDE), noise)
    filling = (size - len(HEAD)) // 4 * 3 - len(_png(picture, 0))
    if filling < 0:
        raise ValueError(f"no data URL of {size} bytes holds a picture of {SIDE} pixels")
    return HEAD + base64.b64encode(_png(picture, filling)).decode()


def _png(picture: Image.Image, filling: int) -> bytes:
    """With so many bytes that decoders pass over."""
    chunks, file = PngInfo(), io.BytesIO()
    chunks.add(b"paDd", bytes(filling))
    picture.save(file, "PNG", compress_level=0, pnginfo=chunks)
    return file.getvalue()
