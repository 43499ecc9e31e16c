"""A conversation in OpenAI's chat form → the conversation that the model's tokenizer takes.

Promises: pure functions. The result has the same meaning with the fewest changes. An empty
assistant message is left out. If the tokenizer has no place for text beside tool calls, the calls
stay. A system message after an answer goes in front of the user's next text. A result follows its
call, and call ids have the form that the tokenizer takes. An assistant message at the end is to be
continued. What is dropped is named in `notes`. Refuses, naming the message, a result without its
call, and a call as the last message.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from predict.errors import RequestError, shown
from predict.requests.conversations.generations import Generation
from predict.requests.conversations.ids import short_ids
from predict.requests.conversations.messages import (
    SYSTEM_ROLES,
    Message,
    cleaned,
    has_text,
    text_of,
)
from predict.requests.conversations.notes import Notes


class Turn:
    """A message, and its place in the request; never changed. `names`: field → its name in the
    request, where the request's API calls it otherwise. `calls_at`: the places of its calls, if not
    in its `tool_calls`."""

    __slots__ = ("calls", "calls_at", "message", "names", "place", "role")

    def __init__(
        self,
        message: Message,
        place: str,
        names: Mapping[str, str] = MappingProxyType({}),
        calls_at: tuple[str, ...] = (),
    ) -> None:
        self.message = message
        self.place = place
        self.names = names
        self.calls_at = calls_at
        self.role = message.get("role")
        self.calls = message.get("tool_calls") or () if self.role == "assistant" else ()

    def with_message(self, message: Message) -> "Turn":
        return Turn(message, self.place, self.names, self.calls_at)

    def where(self, field: str) -> str:
        return f"{self.place}.{self.names.get(field, field)}"

    @property
    def places_of_calls(self) -> list[str]:
        every = (f"{self.place}.tool_calls[{i}]" for i in range(len(self.calls)))
        return list(self.calls_at or every)

    def as_sent(self, name: str) -> str:
        """A place in a call, as the request names it."""
        begin = f"{self.place}.tool_calls["
        if not self.calls_at or not name.startswith(begin):
            return name
        number, _, rest = name.removeprefix(begin).partition("]")
        at = self.calls_at[int(number)]
        field = rest.removeprefix(".function").removeprefix(".")
        return f"{at}.{self.names.get(field, field)}" if field else at


PLAIN = frozenset(["role", "content"])


@dataclass
class _Group:
    """An assistant turn with calls, and the results that answer them."""

    turn: Turn
    results: dict[str, Turn] = field(default_factory=dict)  # by call id
    last: bool = True  # no other assistant message follows
    followed: bool = False  # a message other than a result follows

    @cached_property
    def ids(self) -> list[str]:
        return [call["id"] for call in self.turn.calls]

    @property
    def places(self) -> tuple[str, ...]:
        """The places of the calls that are answered."""
        places = zip(self.ids, self.turn.places_of_calls, strict=True)
        return tuple(place for call, place in places if call in self.results)


def fit(turns: list[Turn], rules: Generation, notes: Notes) -> tuple[list[Turn], bool]:
    """The turns that the tokenizer takes, and whether the last one is to be continued. A turn that
    needs no change is the same object with the same message."""
    kept = _systems_placed(_without_empty([_cleaned(t, rules, notes) for t in turns], notes))
    if any(turn.calls or turn.role == "tool" for turn in kept):
        kept = _merged(_with_results(_merged(kept), notes))
        kept = [_one_of_both(turn, rules, notes) for turn in kept]
        kept = _with_ids(kept, rules) if rules.tools else _without_tools(kept, notes)
    if not kept and turns:
        raise RequestError(
            f"'{_list_name(turns)}' has only empty messages of the assistant; send a message of "
            "the user",
            _list_name(turns),
        )
    if kept and kept[0].role == "assistant" and (len(kept) == 1 or kept[0].calls):
        # mistral-common starts every such conversation like this, but after its checks, which
        # reject a single assistant message and do not count the calls of the first message
        kept.insert(0, Turn({"role": "user", "content": ""}, kept[0].place))
    continued = bool(kept) and kept[-1].role == "assistant"
    if continued and kept[-1].calls:
        where = kept[-1].place
        raise RequestError(
            f"'{where}' calls a tool and is the last message; send the result behind it, a "
            "message of role 'tool'",
            where,
        )
    return kept, continued


def is_plain(messages: list[Any]) -> bool:
    """Whether this is the common conversation, texts with a question at the end, which every
    tokenizer takes. It is checked once, in a microsecond or two."""
    before = None
    for message in messages:
        role = message.get("role")
        content = message.get("content")
        if type(content) is not str or not PLAIN.issuperset(message):
            return False
        if role == "assistant":
            if not content:
                return False
        elif role == "system":
            if before == "assistant":
                return False
        elif role != "user":
            return False
        before = role
    return before == "user"


def same(before: list[Turn], after: list[Turn]) -> bool:
    """Whether nothing changed. Compares the messages' identity, not their content."""
    return len(before) == len(after) and all(
        a.message is b.message for a, b in zip(before, after, strict=True)
    )


def _list_name(turns: list[Turn]) -> str:
    return turns[0].place.partition("[")[0]


def _cleaned(turn: Turn, rules: Generation, notes: Notes) -> Turn:
    found = Notes() if turn.calls_at else notes
    try:
        message = cleaned(turn.message, turn.place, rules, found)
        if found is not notes:
            notes.add(*map(turn.as_sent, found.names))
    except RequestError as error:
        said, param = str(error), error.param or turn.place
        for field_ in turn.names:
            said = said.replace(f"'{turn.place}.{field_}", f"'{turn.where(field_)}", 1)
            if param.startswith(f"{turn.place}.{field_}"):
                param = turn.where(field_) + param.removeprefix(f"{turn.place}.{field_}")
        raise RequestError(said, param, error.status) from None
    return turn if message is turn.message else turn.with_message(message)


def _without_empty(turns: list[Turn], notes: Notes) -> list[Turn]:
    kept = []
    for turn in turns:
        if turn.role == "assistant" and not turn.calls and not has_text(turn.message):
            notes.add(turn.place)
        else:
            kept.append(turn)
    return kept


def _merged(turns: list[Turn]) -> list[Turn]:
    """Merges consecutive assistant messages if one of them has calls: mistral-common counts the
    results of each message separately."""
    runs: list[list[Turn]] = []
    for turn in turns:
        run = runs[-1] if runs and runs[-1][0].role == turn.role == "assistant" else []
        if run and (turn.calls or any(one.calls for one in run)):
            run.append(turn)
        else:
            runs.append([turn])
    return [run[0] if len(run) == 1 else _one_of(run) for run in runs]


def _one_of(run: list[Turn]) -> Turn:
    texts = [text_of(turn.message.get("content")) for turn in run]
    message = {**run[0].message, "tool_calls": [call for turn in run for call in turn.calls]}
    message["content"] = "\n\n".join(text for text in texts if text) or None
    places = tuple(place for turn in run for place in turn.places_of_calls)
    return Turn(message, run[0].place, run[0].names, places)


def _with_results(turns: list[Turn], notes: Notes) -> list[Turn]:
    """Puts each result right after the calls it belongs to. Calls that were never answered are left
    out if the assistant went on without them, or said something beside them."""
    groups: list[_Group] = []
    rest: list[Turn | _Group] = []
    for turn in turns:
        if turn.role == "tool":
            _answer(turn, groups[-1] if groups else None)
            continue
        if groups:
            groups[-1].followed = True
            groups[-1].last &= turn.role != "assistant"
        if turn.calls:
            groups.append(_Group(turn))
            rest.append(groups[-1])
        else:
            rest.append(turn)
    kept: list[Turn] = []
    for one in rest:
        kept += _of_group(one, notes) if isinstance(one, _Group) else [one]
    return kept


def _answer(turn: Turn, group: _Group | None) -> None:
    call = turn.message["tool_call_id"]
    where = turn.where("tool_call_id")
    if group is None or not group.last or call not in group.ids:
        known = f"; it has {shown(group.ids)}" if group and group.last else ""
        raise RequestError(
            f"'{where}' is {shown(call)}, and the assistant's message before it has no call with "
            f"this id{known}",
            where,
        )
    if call in group.results:
        raise RequestError(f"'{where}' is {shown(call)}, a call that was answered already", where)
    group.results[call] = turn


def _of_group(group: _Group, notes: Notes) -> list[Turn]:
    turn = group.turn
    unanswered = len(group.results) < len(group.ids)
    broken_off = group.followed and not group.results and has_text(turn.message)
    if unanswered and (broken_off or not group.last):
        calls = []
        for call, place in zip(turn.calls, turn.places_of_calls, strict=True):
            if call["id"] in group.results:
                calls.append(call)
            else:
                notes.add(place)
        message = {key: value for key, value in turn.message.items() if key != "tool_calls"}
        kept = {**message, "tool_calls": calls} if calls else message
        turn = Turn(kept, turn.place, turn.names, group.places)
        if not calls and not has_text(message):
            return []
    return [turn, *group.results.values()]


def _one_of_both(turn: Turn, rules: Generation, notes: Notes) -> Turn:
    if rules.text_beside_calls or not rules.tools or not turn.calls:
        return turn
    content = turn.message.get("content")
    if not content:
        return turn
    if has_text(turn.message):
        notes.add(turn.where("content"))
    rest = {key: value for key, value in turn.message.items() if key != "refusal"}
    return turn.with_message({**rest, "content": None})


def _with_ids(turns: list[Turn], rules: Generation) -> list[Turn]:
    if not rules.nine_character_ids:
        return turns
    short = short_ids(call["id"] for turn in turns for call in turn.calls)
    return [_renamed(turn, short) for turn in turns] if short else turns


def _renamed(turn: Turn, short: dict[str, str]) -> Turn:
    if any(call["id"] in short for call in turn.calls):
        calls = [{**call, "id": short.get(call["id"], call["id"])} for call in turn.calls]
        return turn.with_message({**turn.message, "tool_calls": calls})
    if turn.role == "tool" and (call := turn.message["tool_call_id"]) in short:
        return turn.with_message({**turn.message, "tool_call_id": short[call]})
    return turn


def _without_tools(turns: list[Turn], notes: Notes) -> list[Turn]:
    """For a tokenizer without tool tokens: results become user texts, calls are dropped."""
    kept = []
    for turn in turns:
        if turn.role == "tool":
            content = text_of(turn.message["content"])
            kept.append(turn.with_message({"role": "user", "content": content}))
        elif turn.calls:
            notes.add(*(turn.calls_at or (f"{turn.place}.tool_calls",)))
            if has_text(turn.message):
                content = turn.message["content"]
                kept.append(turn.with_message({"role": "assistant", "content": content}))
        else:
            kept.append(turn)
    return kept


def _systems_placed(turns: list[Turn]) -> list[Turn]:
    """Moves system messages that follow an answer or a result, where mistral-common takes none, in
    front of the user's next text. If none follows: after an answer they become a user turn, because
    the answer is over; after a result they go in front of the last user text, because v3's prompt
    has a result only until the user speaks again."""
    kept: list[Turn] = []
    waiting: list[Turn] = []
    for turn in turns:
        before = kept[-1].role if kept else None
        if turn.role in SYSTEM_ROLES and (waiting or before in ("assistant", "tool")):
            waiting.append(turn)
            continue
        if waiting and turn.role == "user":
            turn = _behind(waiting, turn)
            waiting = []
        kept.append(turn)
    if waiting:
        users = [i for i, turn in enumerate(kept) if turn.role == "user"]
        answered = kept[-1].role == "assistant" and not kept[-1].calls
        if users and not answered:
            kept[users[-1]] = _behind(waiting, kept[users[-1]])
        else:
            content = _joined(waiting)
            kept.append(Turn({"role": "user", "content": content}, waiting[0].place))
    return kept


def _joined(turns: Iterable[Turn]) -> str:
    texts = [text_of(turn.message.get("content")) for turn in turns]
    return "\n\n".join(text for text in texts if text)


def _behind(systems: list[Turn], user: Turn) -> Turn:
    """The user turn with the system messages in front of its text."""
    text = _joined(systems)
    if not text:
        return user.with_message(dict(user.message))  # a new object: the system messages are gone
    content = user.message["content"]
    if isinstance(content, str):
        new: Any = f"{text}\n\n{content}" if content else text
        return user.with_message({**user.message, "content": new})
    parts = list(content)
    first = next((i for i, part in enumerate(parts) if part["type"] == "text"), None)
    if first is None:
        parts.insert(0, {"type": "text", "text": text})
    else:
        parts[first] = {"type": "text", "text": f"{text}\n\n{parts[first]['text']}"}
    return user.with_message({**user.message, "content": parts})
