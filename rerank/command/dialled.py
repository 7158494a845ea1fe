"""Options of a verb that are dials of the service: name, type, help, rule and default come from where the dial is declared."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from rerank import house
from serving import dials


def dialled(**panels: type[Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """For a verb with a parameter `told`, a dict: it gets what was given of the fields of the panels' dataclasses that differs from Pulumi.yaml's defaults.

    `panels`: heading in the help text, with _ for a space, and the dataclass.
    """
    fields = [(heading.replace("_", " "), item) for heading, kind in panels.items() for item in dataclasses.fields(kind)]
    defaults = house.defaults()

    def decorate(verb: Callable[..., Any]) -> Callable[..., Any]:
        def call(**given: Any) -> Any:
            told = {item.name: given.pop(item.name) for _, item in fields}
            return verb(**given, told={name: value for name, value in told.items() if value != defaults[name]})

        signature = inspect.signature(verb)
        own = [parameter for parameter in signature.parameters.values() if parameter.name != "told"]
        more = [
            inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=defaults[item.name], annotation=_option(heading, item))
            for heading, item in fields
        ]
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + more
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        call.__name__, call.__doc__ = verb.__name__, verb.__doc__
        return call

    return decorate


def _option(heading: str, item: "dataclasses.Field[Any]") -> Any:
    rule = item.metadata.get("rule")

    def check(value: Any) -> Any:
        if rule and value is not None and not rule.holds(value):
            raise typer.BadParameter(f"{value!r} {rule.sentence}")
        return value

    what = item.metadata["what"] or dials.flag(item.name).strip("-").replace("-", " ")
    return Annotated[item.type, typer.Option(help=what[0].upper() + what[1:], rich_help_panel=heading, callback=check)]
