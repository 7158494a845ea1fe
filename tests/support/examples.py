"""The program with examples/README.md's lines pasted in, as a reader does it."""

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

from tests.support.recording import ROOT

PLACE = "    return outputs(\n        s,\n        model=s.model_slug,"


def lines() -> dict[str, str]:
    """The lines of each example, by the heading they stand under."""
    text = (ROOT / "examples/README.md").read_text(encoding="utf-8")
    sections = [section.partition("\n") for section in text.split("\n## ")[1:]]
    return {heading: block[1] for heading, _, body in sections if (block := re.search(r"^```python\n(.*?)^```", body, re.MULTILINE | re.DOTALL))}


def project(folder: Path, *, changed: Mapping[str, str] | None = None) -> Path:
    """A copy of the repository by links, in `folder`, whose __main__.py has all the lines. `changed`: pieces of them that are others in this copy."""
    main = (ROOT / "__main__.py").read_text(encoding="utf-8")
    assert main.count(PLACE) == 1, "the README says where the lines go, and that place has moved"
    pasted = "\n".join(lines().values())
    for old, new in (changed or {}).items():
        assert old in pasted, old
        pasted = pasted.replace(old, new)
    for path in ROOT.iterdir():
        if path.name not in ("__main__.py", ".git"):
            (folder / path.name).symlink_to(path)
    (folder / "__main__.py").write_text(main.replace(PLACE, textwrap.indent(pasted, "    ") + "\n" + PLACE), encoding="utf-8")
    return folder
