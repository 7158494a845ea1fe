"""The documents say what is true of the repository: keys, links, and the commands they name.

The tables of docs/configuration.md are printed by

    .venv/bin/python -c "from tests.unit.test_readme import tables; print(tables())"
"""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from tests.support.recording import ROOT

README = ROOT / "README.md"
CONFIGURATION = ROOT / "docs" / "configuration.md"
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
WIDTH = 100
HEADER = ("| key | default | what it is |", "| --- | --- | --- |")


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def documents() -> list[Path]:
    """Every Markdown file of the repository; folders that begin with a dot are not ours."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("[!.]*/**/*.md")])


def declared() -> dict[str, dict[str, Any]]:
    """This project's keys in Pulumi.yaml, in its order."""
    config = yaml.safe_load(read(ROOT / "Pulumi.yaml"))["config"]
    return {key: entry for key, entry in config.items() if ":" not in key}


def shown(default: Any) -> str:
    """A default as a table has it."""
    text = json.dumps(default) if isinstance(default, (list, bool, int)) else default
    return f"`{text}`" if text != "" else ""


def row(key: str, entry: dict[str, Any]) -> str:
    """A key's line in the table of all keys."""
    return f"| `{key}` | {shown(entry['default'])} | {entry['description'].replace('|', 'or')} |"


def tables() -> str:
    """All keys, under the headings that Pulumi.yaml's comments give them."""
    keys, lines = declared(), []
    for line in read(ROOT / "Pulumi.yaml").splitlines():
        if heading := re.fullmatch(r" *# -- (.+?) -+", line):
            title = {"gpu": "GPU"}.get(heading[1], heading[1][0].upper() + heading[1][1:])
            lines += ["", f"### {title}", "", *HEADER]
        elif (key := re.fullmatch(r"  (\w+):", line)) and key[1] in keys:
            lines.append(row(key[1], keys[key[1]]))
    return "\n".join(lines).strip()


def section(path: Path, heading: str) -> str:
    """What stands between a heading of the second level and the next one."""
    return read(path).split(f"\n## {heading}\n")[1].split("\n## ")[0]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def anchors(path: Path) -> set[str]:
    """Addresses of the headings, as GitHub makes them."""
    seen: dict[str, int] = {}
    found = set()
    for title in re.findall(r"^#+ +(.+?) *$", FENCE.sub("", read(path)), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if slug in seen else slug)
        seen[slug] = seen.get(slug, 0) + 1
    return found


def commands(text: str) -> list[str]:
    """What stands in code: lines of fenced blocks, and code in a sentence."""
    fenced = [line for block in FENCE.findall(text) for line in block.splitlines()]
    return fenced + re.findall(r"`([^`]+)`", FENCE.sub("", text))


def targets() -> set[str]:
    """The targets of the Makefile."""
    rules = re.findall(r"^([a-z][a-z -]*):", read(ROOT / "Makefile"), re.MULTILINE)
    return {target for rule in rules for target in rule.split()}


def test_every_key_stands_in_docs_as_pulumi_yaml_has_it_and_no_other() -> None:
    said = section(CONFIGURATION, "Every key")
    rows = [line for line in said.splitlines() if line.startswith("| `")]
    assert rows == [row(key, entry) for key, entry in declared().items()]
    assert tables() in said


def test_the_readme_shows_ten_keys_with_their_defaults() -> None:
    lines = section(README, "Ten keys").splitlines()
    said = {cells(line)[0].strip("`"): cells(line)[1] for line in lines if line.startswith("| `")}
    right = {key: shown(entry["default"]) for key, entry in declared().items() if key in said}
    assert len(said) == 10
    assert said == right


def test_every_relative_link_leads_to_a_file_and_every_anchor_to_a_heading() -> None:
    broken, count = [], 0
    for path in documents():
        for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", read(path))):
            if re.match(r"[a-z]+:", link):
                continue
            count += 1
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{path.relative_to(ROOT)}: {link}")
    assert count > 20
    assert broken == []


def test_every_make_command_that_is_named_is_a_target_of_the_makefile() -> None:
    named = {
        (path.relative_to(ROOT).as_posix(), verb)
        for path in documents()
        for command in commands(read(path))
        for verb in re.findall(r"(?:^|[\s;&])make ([a-z][a-z-]*)\b(?!=)", command)
    }
    assert {"up", "demo", "verify"} <= {verb for _, verb in named}
    assert {(path, verb) for path, verb in named if verb not in targets()} == set()


def test_text_is_wrapped_where_it_is_no_table() -> None:
    # certs/README.md is left as it is: the images copy it, and another byte in it would build all of vLLM's anew.
    folders = [ROOT / "bench", ROOT / "docs"]
    too_long = []
    for path in [README, *(path for folder in folders for path in folder.glob("*.md"))]:
        text = [line for line in read(path).splitlines() if not line.startswith("|")]
        too_long += [f"{path.relative_to(ROOT)}: {line}" for line in text if len(line) > WIDTH]
    assert too_long == []
