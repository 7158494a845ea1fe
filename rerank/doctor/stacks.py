"""A stack's settings without Pulumi: the defaults of Pulumi.yaml under the values of the stack's file, read plainly. No secret is opened."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from config.rules import refusals_of
from config.settings import SECRETS, Settings, camel
from setup.stack import names

SEALED = "sealed-here"  # stands for a secret: long enough, one word


class NoStack(Exception):
    """The stack cannot be read; one sentence with the remedy."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """`name` is '' for the defaults alone; `refused`: what a preview would refuse, in words; `sealed`: the secrets that are set, and not opened; `salted`: its secrets
    want the passphrase that made them.
    """

    name: str
    settings: Settings
    refused: tuple[str, ...] = ()
    sealed: frozenset[str] = frozenset()
    salted: bool = False


def read(declared: Path, checkout: Path | None, name: str, docker_host: str | None = None) -> Stack:
    """`declared` is the folder of Pulumi.yaml. `name` '' is its defaults alone; `docker_host` stands for the stack's own where it is given. NoStack."""
    project = _yaml(declared / "Pulumi.yaml")
    given: dict[str, Any] = {}
    salted = False
    if name:
        if checkout is None:
            raise NoStack("--stack needs the checkout that the stack is in: change into it, or leave --stack out for the defaults")
        if name not in names(checkout):
            raise NoStack(f"there is no stack {name!r} in {checkout}: choose one of {', '.join(names(checkout)) or 'none yet'}")
        held = _yaml(checkout / "stacks" / f"Pulumi.{name}.yaml")
        salted = "encryptionsalt" in held
        prefix = f"{project['name']}:"
        config = held.get("config") or {}
        if not isinstance(config, dict):
            raise NoStack(f"stacks/Pulumi.{name}.yaml: config is no list of keys; see stacks/ for how one looks")
        given = {str(key).removeprefix(prefix): value for key, value in config.items() if ":" not in str(key) or str(key).startswith(prefix)}
    if docker_host is not None:
        given["dockerHost"] = docker_host
    defaults = {key: entry["default"] for key, entry in project["config"].items() if isinstance(entry, dict) and "default" in entry}
    known = {camel(item.name): item for item in dataclasses.fields(Settings)}
    if strange := sorted(known.keys() ^ {key for key in project["config"] if ":" not in key}):
        raise NoStack(
            f"{declared} is of another release than this command ({', '.join(strange[:3])}): run 'python -m rerank doctor' of that checkout"
        )
    refused = [f"{key}: no such key; Pulumi.yaml lists all of them" for key in sorted(given.keys() - known.keys())]
    sealed = frozenset(item.name for key, item in known.items() if isinstance(given.get(key), dict) and "secure" in given[key])
    values: dict[str, Any] = {}
    for key, item in known.items():
        try:
            values[item.name] = SEALED if item.name in sealed else _typed(given.get(key, defaults[key]), item.type)
        except ValueError as error:
            refused.append(f"{key}: {error}")
            values[item.name] = _typed(defaults[key], item.type)
        if item.name in SECRETS and item.name not in sealed and values[item.name]:
            refused.append(f"{key}: the value (not shown) stands in the stack's file in plain text; set it with: pulumi config set --secret {key}")
    settings = Settings(**values)
    refused += refusals_of(settings)
    if declared != checkout:  # certs/ is the checkout's, and has a row of its own
        refused = [text for text in refused if not text.startswith("caBundle:")]
    return Stack(name=name, settings=settings, refused=tuple(refused), sealed=sealed, salted=salted)


def _typed(value: Any, kind: Any) -> Any:
    """The value as Pulumi takes it: its files hold numbers, booleans and lists as text, too. ValueError."""
    if kind is bool:
        if str(value).lower() not in ("true", "false"):
            raise ValueError(f"{value!r} is neither true nor false")
        return str(value).lower() == "true"
    if kind is int:
        try:
            return int(str(value))
        except ValueError:
            raise ValueError(f"{value!r} is no whole number") from None
    if kind is str:
        return str(value)
    found = json.loads(value) if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ValueError(f"{value!r} is not a list of strings; write it as a YAML list in the stack's file")
    return tuple(found)


def _yaml(path: Path) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise NoStack(f"{path} cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise NoStack(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise NoStack(f"{path} is no YAML of keys; see stacks/ for how one looks")
    return found
