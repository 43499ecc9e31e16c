"""Random requests: mutations of valid ones, and those that schemathesis generates."""

import copy
import json
import os
import random
from typing import Any

import hypothesis
from hypothesis import strategies as st

from tests.support.hostile import fields
from tests.support.hostile.case import Case, rich

anything: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(fields.WRONG_VALUES),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=5) | st.sampled_from(["type", "content", "role", "uuid"]), inner
        )
    ),
    max_leaves=12,
)


@st.composite
def mutated(draw: st.DrawFn, model: str) -> Case:
    """A valid request with some of its parts replaced, removed or added, or cut as bytes."""
    path, body = draw(st.sampled_from(sorted(rich(model).items())))
    body = json.loads(json.dumps(body))
    for _ in range(draw(st.integers(1, 3))):
        node: Any = body
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(node[key], (dict, list)) and draw(st.booleans()):
                node = node[key]
                continue
            if draw(st.integers(0, 3)):
                node[key] = copy.deepcopy(draw(anything))  # a later change may modify it
            else:
                del node[key]
            break
    content = json.dumps(bounded(path, body)).encode()
    if draw(st.integers(0, 9)) == 0:
        cut = draw(st.integers(0, len(content)))
        content = content[:cut] + draw(st.binary(max_size=4)) + content[cut + 1 :]
    return Case(f"{path} {content[:2000]!r}", path, content)


NEW_TOKENS = {"/v1/responses": "max_output_tokens", "/predict": "max_new_tokens"}


def bounded(path: str, body: Any) -> Any:
    """A request limited to a few tokens, if it is one at all: by chance it may ask for an answer
    as long as the context, and get it."""
    name = NEW_TOKENS.get(path, "max_tokens")
    if isinstance(body, dict) and "tokenize" not in path and "count" not in path:
        asked = body.get(name)
        if asked is None or (isinstance(asked, (int, float)) and asked > 20):
            return {**body, name: 2}
    return body


def drawn(strategy: st.SearchStrategy[Case], seed: int, most: int) -> list[Case]:
    found: list[Case] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=most,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategy)
    def keep(case: Case) -> None:
        found.append(case)

    keep()
    return found


def random_seed() -> int:
    """The same in each run unless set: a check of a change should fail only through that change."""
    chosen = os.environ.get("HOSTILE_SEED", "1")
    seed = random.SystemRandom().randrange(2**32) if chosen == "new" else int(chosen)
    print(f"seed {seed}")
    return seed
