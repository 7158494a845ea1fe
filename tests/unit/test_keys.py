"""Key file and key comparison."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from serving import keys

ROOT = Path(__file__).parents[2]


def run_key(stdin: bytes, target: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "serving", "key", "--target", str(target)], input=stdin, capture_output=True, cwd=ROOT, timeout=20)


def test_keys_are_written_for_their_owner_alone_and_only_a_random_generation_is_printed(tmp_path: Path) -> None:
    target = tmp_path / "api_keys"
    results = [run_key(b"first-key\n\n  second-key  \r\n", target) for _ in range(2)]
    assert target.read_text() == "first-key\nsecond-key\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o400
    assert all(re.fullmatch(rb"[0-9a-f]{32}\n", result.stdout) and result.stderr == b"" and result.returncode == 0 for result in results)
    assert results[0].stdout != results[1].stdout
    assert os.listdir(tmp_path) == ["api_keys"]


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        (b"", b"There is no API key in standard input"),
        (b" \n\n", b"There is no API key in standard input"),
        (b"fine\nsec ret\n", b"line 2 of standard input has a character"),
        ("schlüssel-geheim".encode(), b"line 1 of standard input has a character"),
        (b"\xff\xfe", b"line 1 of standard input has a character"),
        (b"sec\x00ret", b"line 1 of standard input has a character"),
    ],
)
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(tmp_path: Path, stdin: bytes, message: bytes) -> None:
    result = run_key(stdin, tmp_path / "api_keys")
    assert (result.returncode, result.stdout, os.listdir(tmp_path)) == (1, b"", [])
    assert message in result.stderr
    assert result.stderr.count(b"\n") == 1
    assert not any(word in result.stderr for word in (b"ret", b"geheim", b"fine"))


def test_a_target_that_cannot_be_written_ends_in_one_sentence(tmp_path: Path) -> None:
    result = run_key(b"k\n", tmp_path / "missing/api_keys")
    assert result.returncode == 1
    assert b"cannot be written (No such file or directory)" in result.stderr
    assert result.stderr.count(b"\n") == 1


def test_a_failed_write_leaves_the_old_keys_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "api_keys"
    keys.write(target, ("old",))
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        keys.write(target, ("new",))
    assert (keys.read(target), os.listdir(tmp_path)) == (("old",), ["api_keys"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot be read \(No such file or directory\)"),
        (b"\n", "There is no API key in"),
        (b"\xc3\xbc\n", "is not ASCII text"),
        (b"a b\n", "line 1 of .* has a character"),
    ],
)
def test_a_missing_or_empty_key_file_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "k").write_bytes(content)
    with pytest.raises(keys.BadKeys, match=message):
        keys.read(tmp_path / "k")


@pytest.mark.parametrize(
    ("header", "admitted"),
    [
        (b"Bearer one", True),
        (b"bearer two", True),
        (b"Bearer  one ", True),
        (b"", False),
        (b"one", False),
        (b"Basic one", False),
        (b"Bearer", False),
        (b"Bearer ", False),
        (b"Bearer on", False),
        (b"Bearer onee", False),
        (b"Bearer one two", False),
        (b"Bearer \xff", False),
        (b"Bearer ONE", False),
    ],
)
def test_only_a_bearer_token_that_equals_a_key_is_admitted(header: bytes, admitted: bool) -> None:
    assert keys.admits(header, ("one", "two")) is admitted
