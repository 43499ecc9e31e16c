"""pydantic-ai: its OpenAI, Responses and Mistral models, with a tool and a typed answer."""

from harness import MODEL, RESULT, URL, WEATHER, WIND, run
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url=f"{URL}/v1", api_key="none")
chat = OpenAIChatModel(MODEL, provider=provider)
responses = OpenAIResponsesModel(MODEL, provider=provider)


class City(BaseModel):
    name: str
    people: int


def mistral():
    from pydantic_ai.models.mistral import MistralModel
    from pydantic_ai.providers.mistral import MistralProvider

    return MistralModel(MODEL, provider=MistralProvider(api_key="none", base_url=URL))


def plain(model):
    return Agent(model).run_sync(WIND).output


def stream(model):
    answer = Agent(model).run_stream_sync(WIND)
    return "".join(answer.stream_text(delta=True))


def tool(model):
    agent = Agent(model)
    calls = []

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """The weather in a city."""
        calls.append(city)
        return RESULT

    return agent.run_sync(WEATHER).output


def structured(model):
    settings = {"max_tokens": 200, "temperature": 0.2}
    agent = Agent(model, output_type=City, retries=3, model_settings=settings)
    return sorted(agent.run_sync(WIND).output.model_dump())


run(
    plain=lambda: plain(chat),
    stream=lambda: stream(chat),
    tool=lambda: tool(chat),
    structured=lambda: structured(chat),
    responses=lambda: plain(responses),
    responses_tool=lambda: tool(responses),
    responses_structured=lambda: structured(responses),
    mistral=lambda: plain(mistral()),
    mistral_tool=lambda: tool(mistral()),
)
