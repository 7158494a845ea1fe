"""register and unregister: what is done in RAGFlow, release by release. No second POST, no provider deleted, no model touched but ours."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from registration import calls
from registration.api import Api, NoSuchRoute, Refused, WrongKey
from registration.entry import Entry
from registration.releases import Generation, model_id
from registration.standing import Standing, chats_using, instance_names, is_default, look, tenant

BY_HAND = (
    "RAGFlow {version} takes no API key where models are added; add the model by hand (pulumi stack output ragflow has the values) and empty ragflowUrl, "
    "or upgrade RAGFlow to v0.24 or later"
)
WRONG_KEY = (
    "ragflowApiKey: RAGFlow does not take the value (not shown); make a key in RAGFlow (your picture, then API) and set it with: "
    "pulumi config set --secret ragflowApiKey. Releases before v0.24 take none for models: there add the model by hand and empty ragflowUrl"
)

TRIAL_SECONDS = 9.5  # RAGFlow ends its trial of a model after 10 s


class CannotRegister(Exception):
    """This release takes no model from a program; the text has the remedy."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """`model_id`: what to name as rerank model; `said`: what a person should know."""

    model_id: str = ""
    said: tuple[str, ...] = ()


def register(api: Api, entry: Entry, clock: Callable[[], float] = time.monotonic) -> Done:
    """The entry as it is wanted, whatever stands there. Raises Unreachable, Refused or CannotRegister; then what stood there stands, but for v0.26 (see _remake).

    A RAGFlow that was just started loads its client within its own trial, which can end it: what was refused after so long is asked for once more.
    """
    start = clock()
    try:
        return _register(api, entry)
    except (WrongKey, NoSuchRoute):
        raise
    except Refused:
        if clock() - start < TRIAL_SECONDS:
            raise
        return _register(api, entry)


def _register(api: Api, entry: Entry) -> Done:
    seen = look(api, entry)
    generation = seen.release.generation
    if generation is Generation.BY_HAND:
        raise CannotRegister(BY_HAND.format(version=seen.release.version))
    if generation is Generation.UPSERT:
        api(calls.upsert(entry))
        if seen.off:
            api(calls.enable(entry))
    else:
        _put(api, entry, seen)
    if entry.default and not is_default(api, entry, seen.release):
        _make_default(api, entry, generation)
    return Done(model_id=model_id(generation, entry))


def check(api: Api, entry: Entry) -> Done:
    """Whether RAGFlow holds the entry as it is wanted, and its own trial of it: a call from inside RAGFlow. Changes nothing. Raises Unreachable, Refused."""
    seen = look(api, entry)
    generation = seen.release.generation
    if not seen.as_wanted:
        raise Refused(f"RAGFlow {seen.release.version} holds it otherwise: {', '.join(seen.differences)}; make up puts that right")
    api(calls.try_upsert(entry) if generation is Generation.UPSERT else calls.verify(entry))
    return Done(model_id=model_id(generation, entry), said=(f"RAGFlow {seen.release.version}",))


def _put(api: Api, entry: Entry, seen: Standing) -> None:
    if not seen.there:
        _provide(api)
        _create(api, entry)
    elif seen.release.generation is Generation.INSTANCES:
        _remake(api, entry, seen)
    else:
        try:
            api(calls.change(entry, seen.others))
        except NoSuchRoute:  # a build without a number may still be of v0.26
            _remake(api, entry, seen)
    if seen.off:
        api(calls.switch_on(entry))


def _provide(api: Api) -> None:
    try:
        api(calls.add_provider())
    except NoSuchRoute:
        raise
    except Refused as error:
        if "already exists" not in str(error):
            raise


def _create(api: Api, entry: Entry, seen: Standing | None = None) -> None:
    before = set(instance_names(api))
    try:
        api(calls.create(entry, seen.others if seen else ()))
    except Refused:
        # where somebody else entered the name since we looked, an empty one under the next name is left
        ours = re.compile(rf"{re.escape(entry.instance)}\(\d+\)")
        if left := sorted(name for name in set(instance_names(api)) - before if ours.fullmatch(name)):
            api(calls.drop(*left))
        raise


def _remake(api: Api, entry: Entry, seen: Standing) -> None:
    """v0.26 changes no instance: it is dropped and made under the same name, which chats find again. Tried first, so that a wrong address or key drops nothing."""
    api(calls.verify(entry))
    api(calls.drop(entry.instance))
    _create(api, entry, seen)


def _make_default(api: Api, entry: Entry, generation: Generation) -> None:
    if generation is Generation.UPSERT:
        way, known = tenant(api)
        api(calls.write_tenant(way, known, model_id(generation, entry)))
    else:
        api(calls.make_default(entry))


def unregister(api: Api, entry: Entry) -> Done:
    """Our entry goes, and the tenant's default where it is ours and was asked for. Raises Unreachable or Refused."""
    seen = look(api, entry)
    generation = seen.release.generation
    if generation is Generation.BY_HAND or not seen.there:
        return Done()
    if seen.elsewhere:
        return Done(
            said=(
                f"RAGFlow's entry for {entry.model} was left: it calls {seen.elsewhere}, which is not this reranker; remove it by hand if nobody needs it",
            )
        )
    said = []
    if seen.others:
        names = ", ".join(str(other["model_name"]) for other in seen.others)
        return Done(
            said=(f"RAGFlow's instance {entry.instance} was left: it holds {names} as well, which this stack did not put there; remove it by hand",)
        )
    if chats := chats_using(api, seen.ids):
        said.append(
            f"RAGFlow's chats {', '.join(chats)} use the reranker that goes now: they fail until another rerank model, or none, is chosen there"
        )
    ours = _default_is_ours(api, entry, seen)
    if ours and entry.default:
        _clear_default(api, generation)
    elif ours:
        said.append("RAGFlow's default rerank model is the reranker that goes now; choose another one, or none, under Model providers")
    api(calls.delete(entry) if generation is Generation.UPSERT else calls.drop(entry.instance))
    return Done(said=tuple(said))


def _default_is_ours(api: Api, entry: Entry, seen: Standing) -> bool:
    try:
        return is_default(api, entry, seen.release)
    except Refused:
        return False  # it does not show it; that is no reason to stay


def _clear_default(api: Api, generation: Generation) -> None:
    if generation is Generation.UPSERT:
        way, known = tenant(api)
        api(calls.write_tenant(way, known, ""))
    else:
        api(calls.no_default())
