"""Large JSON read in pieces: what json.loads reads of it, and nothing that json.loads refuses."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from serving.web import pieces

LETTERS = (
    "a",
    " ",
    '"',
    "\\",
    "/",
    "\n",
    "\x00",
    "\x1f",
    "é",
    "中",
    "\u2028",
    "\ud7ff",
    "\ue000",
    "😀",
    "\U0010ffff",
    "\ud83d",
    "\udc00",
    "u",
    "d83d",
)

SHORTEST = 13  # a piece is longer than the escape of a pair of surrogates


@pytest.fixture(params=[SHORTEST, 14, 17, 23, 40, 100, 256 << 10])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Everything counts as large, and is read in pieces of so many bytes."""
    monkeypatch.setattr(pieces, "SMALL_BYTES", -1)
    monkeypatch.setattr(pieces, "PIECE_BYTES", request.param)
    return int(request.param)


def text(rng: random.Random) -> str:
    return "".join(rng.choices(LETTERS, k=rng.choice((0, 1, 5, 60, 200))))


def value(rng: random.Random, depth: int = 0) -> Any:
    choices: list[Callable[[], Any]] = [
        lambda: rng.choice((None, True, False)),
        lambda: rng.choice((0, -1, 10**30, rng.randrange(1 << 40))),
        lambda: rng.choice((0.5, -1e-300, 1e308, rng.random())),
        lambda: text(rng),
        lambda: text(rng),
    ]
    if depth < 4:
        choices += [lambda: [value(rng, depth + 1) for _ in range(rng.randrange(5))]] * 2
        choices += [lambda: {text(rng): value(rng, depth + 1) for _ in range(rng.randrange(5))}] * 2
    return rng.choice(choices)()


def written(rng: random.Random, given: Any) -> bytes:
    """As JSON, in any of the spellings that a client may choose."""
    spaced = rng.choice(({}, {"indent": 1}, {"separators": (",", ":")}, {"separators": (" , ", "\t:\r\n")}))
    said = json.dumps(given, ensure_ascii=rng.random() < 0.5, **spaced)
    if rng.random() < 0.3:
        said = said.replace("\\ud", "\\uD").replace("\\ue", "\\uE")
    return said.encode("utf-8", "surrogatepass")


def read(reader: Callable[..., Any], raw: bytes) -> tuple[str, Any]:
    """What a reader makes of it; a refusal is a refusal, whatever its words."""
    try:
        return "read", reader(raw)
    except (ValueError, RecursionError):
        return "refused", None


def strictly(raw: bytes) -> Any:
    """json.loads, which lets NaN and the infinities through unless it is told otherwise."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(raw, parse_constant=refuse)


def test_whatever_json_says_is_read_as_json_reads_it(small: int) -> None:
    rng = random.Random(small)
    for number in range(1_500):
        raw = written(rng, value(rng))
        assert pieces.loads(raw) == json.loads(raw), (number, raw)


def test_what_is_no_json_any_more_is_read_or_refused_as_json_does(small: int) -> None:
    rng = random.Random(100 + small)
    strange = (
        b'"',
        b"\\",
        b"{",
        b"]",
        b",",
        b"\x00",
        b"\xff",
        b"\xed\xa0\x80",
        b"\\ud83d",
        b"\\u12",
        b"1e999",
        b"NaN",
        b"-",
        b"0",
        b" ",
        b"\xef\xbb\xbf",
    )
    for number in range(1_500):
        raw = bytearray(written(rng, value(rng)))
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(raw) + 1)
            match rng.randrange(3):
                case 0:
                    raw[at:at] = rng.choice(strange)
                case 1:
                    del raw[at : at + rng.randrange(1, 8)]
                case _:
                    del raw[at:]
        assert read(pieces.loads, bytes(raw)) == read(strictly, bytes(raw)), (number, bytes(raw))


@pytest.mark.parametrize(
    "unit",
    ["a", "é", "中", "😀", "\\n", "\\\\", '\\"', "\\u4e2d", "\\ud83d\\ude00", "\\ud83d", "\\ude00", "\\\\ud83d", "\\\\\\ud83d\\ude00", "\\u005c\\\\"],
)
def test_a_long_string_is_the_same_wherever_it_is_cut(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "SMALL_BYTES", -1)
    expected = json.loads(f'"{unit * 60}"')
    for piece in range(SHORTEST, SHORTEST + 120):
        monkeypatch.setattr(pieces, "PIECE_BYTES", piece)
        for before in ("", "x", "xy", "\\t", "é😀"):
            raw = f'["{before}{unit * 60}","end"]'.encode()
            assert pieces.loads(raw) == [json.loads(f'"{before}"') + expected, "end"], (piece, before)


def test_a_document_that_is_cut_off_anywhere_is_refused(small: int) -> None:
    raw = json.dumps({"query": "中 \\ 😀", "documents": ["a" * 50, "\ud83d", "\u0000"], "top_n": [1.5, True]}).encode()
    for end in range(len(raw)):
        with pytest.raises(ValueError):  # noqa: PT011 json's own words
            pieces.loads(raw[:end])


@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_none_are_refused_large_and_small(name: str) -> None:
    for filling in ("", "x" * (pieces.SMALL_BYTES + 1)):
        with pytest.raises(ValueError, match=name):
            pieces.loads(f'{{"text": "{filling}", "top_n": {name}}}'.encode())


@pytest.mark.parametrize("body", [b"[%b]", b'{"documents": [%b]}', b"[[%b]]"])
@pytest.mark.parametrize("item", [b"1", b"1.5", b'"x"', b"[]", b"{}"])
def test_too_many_values_are_refused(body: bytes, item: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "SMALL_BYTES", -1)
    monkeypatch.setattr(pieces, "MOST_VALUES", 100)
    assert pieces.loads(body % b",".join([item] * 90)) is not None
    with pytest.raises(ValueError, match="too many values"):
        pieces.loads(body % b",".join([item] * 101))


def test_the_largest_call_has_far_fewer_values_than_there_may_be() -> None:
    assert pieces.MOST_VALUES > 5 * 10_000  # documents of a call, at most, each an object with its text


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
@pytest.mark.parametrize("closed", [True, False])
def test_nesting_that_is_too_deep_is_refused_and_does_no_harm(opening: bytes, closed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "SMALL_BYTES", -1)
    closing = opening.replace(b'"a":', b"")[::-1].translate(bytes.maketrans(b"[{", b"]}"))
    raw = opening * 100_000 + (b"1" + closing * 100_000 if closed else b"")
    with pytest.raises((RecursionError, ValueError)):
        pieces.loads(raw)
    assert pieces.loads(b'{"still": ["well"]}') == {"still": ["well"]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_every_encoding_that_json_knows_is_read(encoding: str, small: int) -> None:
    raw = json.dumps({"query": "é 中 😀", "documents": ["😀" * 30]}, ensure_ascii=False).encode(encoding)
    assert pieces.loads(raw) == json.loads(raw)


@pytest.mark.parametrize(
    "raw",
    [b"", b" ", b'"' + b"\xff" * 40 + b'"', b'["\xed\xa0"]', b"{} {}", b"[] x", b'{"a":1,}', b"[1,]", b'{"a" 1}', b"\xef\xbb\xbf\xef\xbb\xbf{}"],
)
def test_what_is_no_json_is_refused(raw: bytes, small: int) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 json's own words
        pieces.loads(raw)


def test_of_a_name_that_comes_twice_the_last_counts_as_in_json(small: int) -> None:
    assert pieces.loads(b'{"a": 1, "b": 2, "a": 3}') == {"a": 3, "b": 2}
