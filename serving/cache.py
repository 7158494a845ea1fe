"""Scores that were computed once: the same texts under the same model and template are not computed again."""

import hashlib
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


def digest(*texts: str) -> bytes:
    """16 bytes that stand for these texts in this order; no text can be had back from them."""
    hasher = hashlib.blake2b(digest_size=16)
    for text in texts:
        data = text.encode("utf-8")
        hasher.update(len(data).to_bytes(8, "little"))
        hasher.update(data)
    return hasher.digest()


class Cache(Generic[Key, Value]):
    """At most `size` values, the ones used last; older than `seconds` (None: no limit) counts as gone. `now` is the caller's clock."""

    def __init__(self, size: int, seconds: float | None = None) -> None:
        self.size, self.seconds = size, seconds
        self.values: OrderedDict[Key, tuple[float, Value]] = OrderedDict()

    def __len__(self) -> int:
        return len(self.values)

    def get(self, key: Key, now: float) -> Value | None:
        found = self.values.get(key)
        if found is None:
            return None
        if self.seconds is not None and now - found[0] > self.seconds:
            del self.values[key]
            return None
        self.values.move_to_end(key)
        return found[1]

    def put(self, key: Key, value: Value, now: float) -> None:
        self.values[key] = (now, value)
        self.values.move_to_end(key)
        while len(self.values) > self.size:
            self.values.popitem(last=False)
