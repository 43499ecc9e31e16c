"""Plain images as content parts, and the answers of a model with images."""

import base64
import io
from typing import Any

from local.standins.corpus import load_dialogues, middle_shade, plain_image
from tests.support.container import Running

IMAGES = load_dialogues()["images"]


def part(colour: str, size: tuple[int, int] = (64, 64), kind: str = "PNG") -> dict[str, Any]:
    """A content part with a plain image as a data URL."""
    stream = io.BytesIO()
    plain_image(middle_shade(colour), size).save(stream, kind)
    data = base64.b64encode(stream.getvalue()).decode()
    return {
        "type": "image_url",
        "image_url": {"url": f"data:image/{kind.lower()};base64,{data}"},
    }


def ask(container: Running, *parts: dict[str, Any], question: str = "What is this?") -> str:
    content: Any = [{"type": "text", "text": question}, *parts]
    response = container.client.chat.completions.create(
        model="pixtral", messages=[{"role": "user", "content": content}], max_tokens=64
    )
    return response.choices[0].message.content or ""
