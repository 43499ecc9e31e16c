"""A map of at most `most` entries, which forgets the one set longest ago."""

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
