"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def row(*cells: object) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def table(titles: Sequence[str], rows: Iterable[str]) -> str:
    return "\n".join([row(*titles), row(*("---" for _ in titles)), *rows])
