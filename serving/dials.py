"""A command's arguments, declared once: the fields of a frozen dataclass. Parser, argv, reading and the rule of each value derive from them."""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, get_args, get_origin

Options = TypeVar("Options")
REQUIRED: Any = dataclasses.MISSING


class Rule(NamedTuple):
    """What a value must be: a test, and the sentence that says so after the value."""

    holds: Callable[[Any], bool]
    sentence: str


def one_of(*choices: str) -> Rule:
    return Rule(lambda value: value in choices, "must be one of " + ", ".join(choices))


def between(low: int, high: int, unit: str) -> Rule:
    return Rule(lambda value: low <= value <= high, f"must be from {low} to {high} {unit}")


def dial(what: str = "", rule: Rule | None = None, *, default: Any = REQUIRED) -> Any:
    """A field: what it is (for --help), the rule of its value, and its default. Dials of a stack have none here: Pulumi.yaml is the home of defaults."""
    return dataclasses.field(default=default, metadata={"what": what, "rule": rule})


def rules_of(options: type[Any]) -> list[tuple[str, Rule]]:
    """(field, rule) of each field that has one."""
    return [(item.name, item.metadata["rule"]) for item in dataclasses.fields(options) if item.metadata.get("rule")]


def flag(name: str) -> str:
    """'--max-documents' for the field max_documents."""
    return "--" + name.replace("_", "-")


def take(options: type[Options], source: Any, **more: Any) -> Options:
    """An instance whose fields are those of `more`, else the attributes of `source` that bear their names, else their defaults."""
    found = {item.name: getattr(source, item.name) for item in _fields(options) if hasattr(source, item.name)}
    return options(**{**found, **more})


def argv(options: Any) -> list[str]:
    """The arguments that `read` turns into an equal instance; those at their default are left out."""
    return [
        word
        for item in _fields(type(options))
        if (value := getattr(options, item.name)) != item.default
        for one in (value if isinstance(value, tuple) else (value,))
        for word in (flag(item.name), _written(one))
    ]


def read(options: type[Options], given: Sequence[str], *, prog: str) -> Options:
    """The instance that arguments stand for. Exits with status 2 and a sentence where they are unknown, missing or against a rule, as argparse does."""
    parser = argparse.ArgumentParser(prog=prog, allow_abbrev=False)
    for item in _fields(options):
        many = get_origin(item.type) is tuple
        parser.add_argument(
            flag(item.name),
            action="append" if many else "store",
            type=_reader(get_args(item.type)[0] if many else item.type, item.metadata.get("rule")),
            required=item.default is REQUIRED,
            default=None if many or item.default is REQUIRED else item.default,  # append would add to a default, and it is a tuple
            help=item.metadata.get("what", ""),
        )
    found = vars(parser.parse_args(list(given)))
    return options(**{name: tuple(value) if isinstance(value, list) else value for name, value in found.items() if value is not None})


def _fields(options: Any) -> tuple["dataclasses.Field[Any]", ...]:
    return dataclasses.fields(options)


def _written(value: Any) -> str:
    return ("off", "on")[value] if isinstance(value, bool) else str(value)


def _reader(kind: Any, rule: Rule | None) -> Callable[[str], Any]:
    """What argparse calls with an argument's text."""

    def read_one(text: str) -> Any:
        try:
            value = {"on": True, "off": False}[text] if kind is bool else kind(text)
        except (KeyError, ValueError) as error:
            raise argparse.ArgumentTypeError(f"{text!r} must be {'on or off' if kind is bool else 'a number'}") from error
        if rule and not rule.holds(value):
            raise argparse.ArgumentTypeError(f"{text!r} {rule.sentence}")
        return value

    return read_one
