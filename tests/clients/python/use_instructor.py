"""instructor: objects by JSON schema, by tools, and by the Responses API."""

import instructor
from harness import MODEL, URL, WIND, run
from openai import OpenAI
from pydantic import BaseModel

server = OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)


class City(BaseModel):
    name: str
    people: int


def made(mode, **more):
    client = instructor.from_openai(server, mode=mode)
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": WIND}],
        response_model=City,
        max_retries=1,
        max_tokens=200,
        temperature=0.2,
        **more,
    )
    return sorted(answer.model_dump())


run(
    structured=lambda: made(instructor.Mode.JSON_SCHEMA),
    structured_tools=lambda: made(instructor.Mode.TOOLS),
)
