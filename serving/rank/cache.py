"""What was computed once: the same texts under the same model and template are not computed again."""

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
    """Values of a total weight of at most `size`, the ones used last; older than `seconds` (None: no limit) counts as gone. `now` is the caller's clock."""

    def __init__(self, size: int, seconds: float | None = None) -> None:
        self.size, self.seconds = size, seconds
        self.values: OrderedDict[Key, tuple[float, int, Value]] = OrderedDict()
        self.weight = 0

    def __len__(self) -> int:
        return len(self.values)

    def get(self, key: Key, now: float) -> Value | None:
        found = self.values.get(key)
        if found is None:
            return None
        if self.seconds is not None and now - found[0] > self.seconds:
            self._drop(key)
            return None
        self.values.move_to_end(key)
        return found[2]

    def put(self, key: Key, value: Value, now: float, weight: int = 1) -> None:
        """Forgets the longest unused ones until this one has room; one that is heavier than all there may be is not kept."""
        if key in self.values:
            self._drop(key)
        if weight > self.size:
            return
        self.values[key] = (now, weight, value)
        self.weight += weight
        while self.weight > self.size:
            self._drop(next(iter(self.values)))

    def _drop(self, key: Key) -> None:
        self.weight -= self.values.pop(key)[1]
