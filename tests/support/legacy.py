"""Legacy requests: settings of models, and the results of a request."""

from hypothesis import strategies as st
from predict.settings import Settings

MISTRAL = Settings(512, 4096, {"temperature": 0.1, "top_p": 0.75, "top_k": 40})

PIXTRAL = Settings(512, None, {"temperature": 0.7}, defaults_for_messages=True)

NONE = Settings()

PROMPT_TOKENS = 10

settings = st.sampled_from([NONE, MISTRAL, PIXTRAL])

ids = st.lists(st.integers(0, 9), min_size=1, max_size=2)
