"""The stack's configuration, read once: the only module that touches pulumi.Config.

Types and defaults live in Pulumi.yaml alone; what is checked here is what a type cannot say. Every refusal names key, value, rule and remedy.
"""

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any

import pulumi

from config.rules import refusals_of
from config.settings import SECRETS, Settings, SettingsError, camel, refused


def read_settings(config: pulumi.Config | None = None) -> Settings:
    """This project's configuration of the running stack. SettingsError naming every key that is unknown, missing, of a wrong type or against a rule."""
    config = config or pulumi.Config()
    # Its own fields before those that are declared in serving/: the first key that is missing is the first in Pulumi.yaml.
    fields = sorted(dataclasses.fields(Settings), key=lambda item: item.name not in Settings.__annotations__)
    settings = Settings(**{item.name: _read(config, camel(item.name), item.type) for item in fields})
    given = {**pulumi.runtime.config.get_config_env(), **pulumi.runtime.config.CONFIG.get()}
    strangers = refuse_strangers(given, config.name, {camel(item.name) for item in fields})
    if refusals := [*strangers, *_plain_secrets(config.name, settings), *refusals_of(settings)]:
        raise refused("this configuration cannot be deployed", refusals)
    return settings


def _read(config: pulumi.Config, key: str, kind: Any) -> Any:
    if kind is int:
        return config.require_int(key)
    if kind is bool:
        return config.require_bool(key)
    if kind is str:
        return config.require(key)
    value = config.require_object(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise SettingsError(f"{key}: {value!r} is not a list of strings; write it as a YAML list in the stack's file")
    return tuple(value)


def refuse_strangers(given: Iterable[str], project: str, known: set[str]) -> list[str]:
    """The engine accepts a misspelt key in silence; a dial that does nothing must not look set."""
    refusals = []
    for full in sorted(given):
        namespace, _, key = full.partition(":")
        if namespace == "docker":
            refusals.append(f"{full}: the default docker provider is switched off, so this would do nothing; use dockerHost")
        if namespace == project and key not in known:
            refusals.append(f"{key}: no such key; {_meant(key, known)}Pulumi.yaml lists all of them")
    return refusals


def _meant(key: str, known: set[str]) -> str:
    spelled = {name.lower(): name for name in sorted(known)}
    close = difflib.get_close_matches(key.lower(), spelled, n=1)
    return f"did you mean {spelled[close[0]]}? " if close else ""


def _plain_secrets(project: str, settings: Settings) -> Iterable[str]:
    """Pulumi.yaml cannot say `secret: true` of a key with a default, so the rule is here."""
    for name in SECRETS:
        if getattr(settings, name) and not pulumi.runtime.config.is_config_secret(f"{project}:{camel(name)}"):
            yield f"{camel(name)}: the value (not shown) stands in the stack's file in plain text; set it with: pulumi config set --secret {camel(name)}"
