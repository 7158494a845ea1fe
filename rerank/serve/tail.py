"""The end of a log file, and what is added to it, across the turns of the file."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

POLL_SECONDS = 0.2


def last(file: Path, lines: int) -> list[str]:
    """The last `lines` lines, with their ends."""
    with file.open(encoding="utf-8", errors="replace") as text:
        return list(deque(text, maxlen=lines))


def follow(file: Path, *, alive: Callable[[], bool], pause: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """What is added from now on, until nobody writes any more: `alive` is asked when there is nothing new."""
    text: TextIO = file.open(encoding="utf-8", errors="replace")
    try:
        text.seek(0, os.SEEK_END)
        while True:
            writing = alive()
            if more := text.read():
                yield more
            elif (fresh := _turned(file, text.fileno())) is not None:
                text.close()
                text = fresh
            elif not writing:
                return
            else:
                pause(POLL_SECONDS)
    finally:
        text.close()


def _turned(file: Path, number: int) -> TextIO | None:
    """The new file under the old name, or None."""
    try:
        if os.fstat(number).st_ino == file.stat().st_ino:
            return None
        return file.open(encoding="utf-8", errors="replace")
    except OSError:
        return None
