"""The README says what Pulumi.yaml says."""

import json
import re
from typing import Any

import yaml

from tests.support.recording import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def row(key: str, entry: dict[str, Any]) -> str:
    """A key's line in the README's table."""
    default = entry["default"]
    shown = json.dumps(default) if isinstance(default, (list, bool, int)) else default
    return f"| `{key}` | {f'`{shown}`' if shown != '' else ''} | {entry['description'].replace('|', 'or')} |"


def test_every_key_stands_in_the_readme_as_pulumi_yaml_has_it_and_no_other() -> None:
    declared = yaml.safe_load((ROOT / "Pulumi.yaml").read_text(encoding="utf-8"))["config"]
    rows = [row(key, entry) for key, entry in declared.items() if ":" not in key]
    section = README.split("## Every key")[1].split("\n## ")[0]
    assert [line for line in section.splitlines() if line.startswith("| `")] == rows


def test_every_file_that_the_readme_links_to_is_there() -> None:
    linked = [target for target in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in target]
    assert linked
    for target in linked:
        assert (ROOT / target).is_file(), target
