"""API keys: the `key` command that writes them into the key volume, and what reads and compares them."""

import argparse
import base64
import hashlib
import hmac
import os
import secrets
import sys
from pathlib import Path


class BadKeys(Exception):
    """A key or key file that cannot be used; its text is one sentence without any key in it."""


def parse(text: str, where: str) -> tuple[str, ...]:
    """The keys of `text`, one a line, blank lines skipped; BadKeys where there is none or one that no HTTP header can carry."""
    keys = []
    for number, line in enumerate(text.splitlines(), start=1):
        key = line.strip()
        if not key:
            continue
        if not all("!" <= character <= "~" for character in key):
            raise BadKeys(
                f"The API key in line {number} of {where} has a character that an HTTP header cannot carry; use printable ASCII "
                "without spaces, e.g. the output of: openssl rand -hex 32"
            )
        keys.append(key)
    if not keys:
        raise BadKeys(f"There is no API key in {where}; it must hold at least one, one a line: set apiKey again and run pulumi up.")
    return tuple(keys)


def read(path: Path) -> tuple[str, ...]:
    """The keys in the file; BadKeys where it is missing, unreadable, empty or not ASCII text."""
    try:
        text = path.read_text(encoding="ascii")
    except UnicodeDecodeError as error:
        raise BadKeys(f"The API key file {path} is not ASCII text; set apiKey again and run pulumi up.") from error
    except OSError as error:
        raise BadKeys(
            f"The API key file {path} cannot be read ({error.strerror}); it must be readable by user {os.getuid()}: run pulumi up, which writes it."
        ) from error
    return parse(text, str(path))


def admits(authorization: bytes, keys: tuple[str, ...], *, basic: bool = False) -> bool:
    """Whether the value of an Authorization header is "Bearer" and one of `keys`; how long it takes tells nothing about the keys.

    With `basic` a browser's "Basic" will do as well, whose password is the key, whatever the user's name.
    """
    scheme, _, given = authorization.partition(b" ")
    named = scheme.lower() == b"bearer"
    if basic and scheme.lower() == b"basic":
        given, named = _password(given), True
    digest = hashlib.sha256(given.strip()).digest()
    found = False
    for key in keys:
        found |= hmac.compare_digest(digest, hashlib.sha256(key.encode()).digest())
    return found and named


def _password(given: bytes) -> bytes:
    """What stands behind the user's name in Basic credentials; b"" where they are none."""
    try:
        return base64.b64decode(given.strip(), validate=True).partition(b":")[2]
    except ValueError:
        return b""


def write(target: Path, keys: tuple[str, ...]) -> None:
    """Puts the keys into `target`, mode 0400, in one step; a reader sees the old file or the new one. OSError where that fails."""
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w", encoding="ascii") as file:
            file.write("".join(f"{key}\n" for key in keys))
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, target)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def main(argv: list[str]) -> int:
    """`key --target FILE`: keys from standard input into FILE; prints a random generation id, which says nothing about them, and nothing else."""
    parser = argparse.ArgumentParser(prog="serving key")
    parser.add_argument("--target", type=Path, required=True)
    target = parser.parse_args(argv).target
    try:
        write(target, parse(sys.stdin.buffer.read().decode("utf-8", "replace"), "standard input"))
    except BadKeys as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"The API key file {target} cannot be written ({error.strerror}); its directory must exist and belong to user {os.getuid()}.",
            file=sys.stderr,
        )
        return 1
    print(secrets.token_hex(16))
    return 0
