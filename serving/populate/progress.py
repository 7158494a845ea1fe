"""What a person sees of a download."""

import time
from collections.abc import Callable

from serving.populate.files import MIB


class Progress:
    """One line every few seconds: the file, MiB of MiB over all files (`total` 0 is unknown), MiB/s since the last line."""

    def __init__(self, total: int, done: int, *, every: float = 3.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.done, self.every, self.clock = total, done, every, clock
        self.since, self.at = done, clock()

    def add(self, path: str, count: int) -> None:
        self.done += count
        now = self.clock()
        if now - self.at >= self.every:
            total = f" of {self.total // MIB} MiB" if self.total else ""
            say(f"{path}: {self.done // MIB} MiB{total}, {max(self.done - self.since, 0) / (now - self.at) / MIB:.1f} MiB/s")
            self.since, self.at = self.done, now


def say(line: str) -> None:
    print(line, flush=True)
