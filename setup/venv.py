"""The virtual environment .venv, as the lock files have it."""

import hashlib
import json
from pathlib import Path

from host.causes import told
from setup.edge import Edge, Refusal

RUNTIME_LOCK = "requirements.lock"
DEV_LOCK = "requirements-dev.lock"
VENV_LIMIT_S = 300
PIP_LIMIT_S = 1800


def ensure(edge: Edge, lock: str) -> Path:
    """Python of a .venv that holds what `lock` pins, made again where a lock changed; Refusal where venv or pip fails.

    The development lock holds every pin of the runtime's, so that one environment serves both.
    """
    folder = edge.root / ".venv"
    python, stamp = folder / "bin" / "python", folder / ".locks.json"
    locks = [RUNTIME_LOCK] if lock == RUNTIME_LOCK else [RUNTIME_LOCK, lock]
    wanted = {name: hashlib.sha256((edge.root / name).read_bytes()).hexdigest() for name in locks}
    have = _read(stamp) if python.exists() else {}
    if all(have.get(name) == digest for name, digest in wanted.items()):
        return python
    if lock not in have and have.get(RUNTIME_LOCK) == wanted[RUNTIME_LOCK]:
        edge.say(f"Adding {lock} to .venv …")
    else:
        edge.say(f"Making .venv from {lock} …")
        stamp.unlink(missing_ok=True)
        made = edge.run([edge.python, "-m", "venv", "--clear", str(folder)], VENV_LIMIT_S)
        if made.code:
            raise Refusal(
                f"python -m venv failed: {made.tail()}; install what it needs (Debian and Ubuntu: apt-get install python3-venv), then run this again"
            )
    pip = edge.run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", lock], PIP_LIMIT_S)
    if pip.code:
        raise Refusal(
            f"pip could not install {lock} into .venv:\n{_indent(pip.tail(8))}\n{told(pip.out + pip.err)}"
            "Ways around it, then run this again:\n"
            "  - a proxy: HTTPS_PROXY=http://proxy:port, with PIP_CERT=/path/ca.pem where it has its own CA\n"
            "  - a mirror of the package index: PIP_INDEX_URL=https://mirror/simple\n"
            f"  - no network: PIP_NO_INDEX=1 PIP_FIND_LINKS=/folder/of/wheels (filled elsewhere by: pip download -r {lock} -d FOLDER)"
        )
    stamp.write_text(json.dumps(wanted))
    return python


def pins(root: Path, lock: str = RUNTIME_LOCK) -> dict[str, str]:
    """Name -> version of every package that a lock file pins."""
    rows = [line.split(" ", 1)[0].split("==") for line in (root / lock).read_text().splitlines() if line[:1].isalnum() and "==" in line]
    return {name: version for name, version in rows}


def _read(stamp: Path) -> dict[str, str]:
    try:
        found = json.loads(stamp.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _indent(text: str) -> str:
    return "\n".join("  " + line for line in text.splitlines())
