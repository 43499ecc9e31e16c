"""The bodies whose reading is timed are what their names say."""

import json

from predict.requests.conversations import adapted
from predict.requests.conversations.generations import generation
from predict.requests.conversations.notes import Notes

from bench import parsing


def test_a_conversation_is_timed_as_it_is_and_brought_into_form() -> None:
    bodies = parsing.bodies()
    plain, foreign = (json.loads(bodies[name][0]) for name in (parsing.PLAIN, parsing.MENDED))
    assert len(plain["messages"]) == len(foreign["messages"]) == 20
    notes = Notes()
    assert adapted("/v1/chat/completions", plain, generation("v3"), notes) is plain
    assert not notes
    mended = adapted("/v1/chat/completions", foreign, generation("v3"), notes)["messages"]
    assert len(notes.names) == 5  # texts beside calls
    assert "system" not in {message["role"] for message in mended}
    assert all(len(message.get("tool_call_id", "a" * 9)) == 9 for message in mended)
