"""dspy: a signature, over chat and over the Responses API."""

import dspy
from harness import MODEL, URL, WIND, run


def ask(**more):
    model = dspy.LM(
        f"openai/{MODEL}", api_base=f"{URL}/v1", api_key="none", cache=False, num_retries=0, **more
    )
    answer = model(messages=[{"role": "user", "content": WIND}])[0]
    return answer["text"] if isinstance(answer, dict) else answer


run(plain=ask, responses=lambda: ask(model_type="responses"))
