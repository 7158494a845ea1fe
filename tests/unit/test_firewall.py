"""docs/firewall.md names every key that decides where something is fetched from, with the defaults of Pulumi.yaml, and no key that is not there."""

import re
from pathlib import Path

from setup.pulumi import PLUGINS
from tests.unit.test_readme import cells, declared, read, section

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "firewall.md"
# What decides where something comes from, or how it gets through.
SOURCES = re.compile(
    r"(index|indexes|mirrors?|registries|endpoint|hosts|context|image|proxy|bundle|packages|modelSource|modelPath|network)$", re.IGNORECASE
)
# These have such a name and fetch nothing: RAGFlow's side of things, and names inside of an archive.
OTHERS = {"ragflowNetwork", "archiveImage"}


def code(text: str) -> set[str]:
    return {word for span in re.findall(r"`([^`]+)`", text) for word in re.findall(r"[A-Za-z_]+", span)}


def test_every_key_that_says_where_something_is_fetched_from_stands_on_the_page() -> None:
    keys = {key for key in declared() if SOURCES.search(key)} - OTHERS
    assert {"imageRegistries", "torchIndexes", "packageIndex", "debianMirror", "modelMirrors", "caBundle", "httpsProxy", "sourceContext"} <= keys
    assert {key for key in keys if key not in code(read(PAGE))} == set()


def test_every_key_on_the_page_is_one_of_pulumi_yaml() -> None:
    camel = {word for word in code(read(PAGE)) if re.fullmatch(r"[a-z]+([A-Z][a-z]*)+", word)}
    assert len(camel) > 20
    assert camel - set(declared()) == set()


def test_the_defaults_on_the_page_are_those_of_pulumi_yaml() -> None:
    said = section(PAGE, "Everything that is fetched")
    for key in ("imageRegistries", "torchIndexes", "modelMirrors", "modelscopeEndpoint", "sourceContext"):
        default = declared()[key]["default"]
        for address in default if isinstance(default, list) else [default]:
            assert address in said, key


def test_every_address_on_the_page_is_a_default() -> None:
    said = read(PAGE)
    defaults = str([entry["default"] for entry in declared().values()])
    assert [address for address in re.findall(r"https?://[^\s`),]+", said) if address not in defaults] == []


def test_each_row_says_who_fetches_and_what_points_it_elsewhere() -> None:
    rows = [cells(line) for line in section(PAGE, "Everything that is fetched").splitlines() if line.startswith("| ")][2:]
    assert len(rows) >= 12
    assert [row for row in rows if len(row) != 4 or not all(row) or "`" not in row[3]] == []


def test_the_variables_on_the_page_are_read_by_make() -> None:
    source = "".join(read(path) for path in (ROOT / "setup").glob("*.py"))
    variables = {word for word in code(read(PAGE)) if re.fullmatch(r"[A-Z]+(_[A-Z]+)+", word)} - {"NO_PROXY"}
    assert {"PIP_INDEX_URL", "PULUMI_ARCHIVE", "PULUMI_PLUGIN_SERVER", "SSL_CERT_FILE"} <= variables
    assert {name for name in variables if name not in source} == set()
    assert all(f"-{name}`" in read(PAGE) for name in PLUGINS)
