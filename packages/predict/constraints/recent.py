"""A map of what was said last: beyond `most` entries the one set longest ago is forgotten."""

from collections import OrderedDict
from typing import Any, TypeVar

Value = TypeVar("Value")


class Recent(OrderedDict[Any, Value]):
    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __setitem__(self, key: Any, value: Value) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > self.most:
            self.popitem(last=False)
