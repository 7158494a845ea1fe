"""Large JSON read in pieces. `json.loads` holds the interpreter for as long as it takes (100 ms for 14 MiB), even in a thread beside the event loop; this lets go of it."""

import codecs
import json
import json.decoder
import json.scanner
from collections.abc import Callable
from typing import Any, NoReturn

SMALL_BYTES = 64 << 10  # up to here json.loads takes less than a millisecond
PIECE_BYTES = 256 << 10
# Far beyond what the largest call has; read one by one, a body made of nothing but ones would take half a minute.
MOST_VALUES = 200_000
_scan: Callable[[str, int, bool], tuple[str, int]] = json.decoder.scanstring  # type: ignore[attr-defined]


def loads(raw: bytes) -> Any:
    """As json.loads, NaN and the infinities refused; in pieces where it is large. ValueError or RecursionError where it is no JSON or has too many values."""
    if len(raw) <= SMALL_BYTES:
        return json.loads(raw, parse_constant=_no_number)
    decode = codecs.getincrementaldecoder(json.detect_encoding(raw))("surrogatepass")
    parts = [decode.decode(raw[start : start + PIECE_BYTES]) for start in range(0, len(raw), PIECE_BYTES)]
    return _Reader().decode("".join([*parts, decode.decode(b"", final=True)]))


class _Reader(json.JSONDecoder):
    """The standard library's own decoder without its C scanner, so that other threads have their turn between two values."""

    def __init__(self) -> None:
        super().__init__(parse_constant=_no_number)
        self.left = MOST_VALUES
        counted = ("parse_object", "parse_array", "parse_string", "parse_int", "parse_float")
        self.parse_string = _string
        for name in counted:
            setattr(self, name, self._counting(getattr(self, name)))
        self.scan_once = json.scanner.py_make_scanner(self)  # type: ignore[attr-defined]

    def _counting(self, parse: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise ValueError("too many values")
            return parse(*arguments)

        return counting


def _string(text: str, start: int, strict: bool = True) -> tuple[str, int]:
    """A string from the character after its quote, and the place behind it; a long one is read in pieces as well."""
    parts: list[str] = []
    while (cut := _between_escapes(text, start + PIECE_BYTES)) > start:
        part, end = _scan(text[start:cut] + '"', 0, strict)
        parts.append(part)
        if end <= cut - start:
            return "".join(parts), start + end
        start = cut
    last, end = _scan(text, start, strict)
    return ("".join([*parts, last]), end) if parts else (last, end)


def _between_escapes(text: str, near: int) -> int:
    """A place not far before `near` where no escape is cut through; 0 where the text ends before, or there is none."""
    if near >= len(text):
        return 0
    if "\\" not in text[near - 12 : near]:
        return near
    # A backslash behind another character begins an escape; but the second half of a pair of surrogates stays with the first.
    for place in range(near, near - 64, -1):
        if text[place] == "\\" != text[place - 1] and not text[place - 6 : place - 2].lower().startswith(("\\ud8", "\\ud9", "\\uda", "\\udb")):
            return place
    return 0


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)
