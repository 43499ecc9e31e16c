"""llama-index: an OpenAI-like model, complete and streamed."""

from harness import MODEL, URL, WIND, run
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

model = OpenAILike(
    model=MODEL, api_base=f"{URL}/v1", api_key="none", is_chat_model=True, max_retries=0
)
messages = [ChatMessage(role="user", content=WIND)]


def stream():
    return "".join(chunk.delta or "" for chunk in model.stream_chat(messages))


run(plain=lambda: model.chat(messages).message.content, stream=stream)
