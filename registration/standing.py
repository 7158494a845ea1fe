"""What RAGFlow holds of the entry right now, and where that differs from what is wanted. Reads only."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from registration import calls
from registration.api import Api, NoSuchRoute, Refused, Release
from registration.entry import MODEL_TYPE, PROVIDER, Entry
from registration.releases import Generation, model_id, stored_name

MOST_PAGES = 20
ABSENT = "not in RAGFlow"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """`differences`: sentences without any key, empty where all is as wanted; `others`: models that a person put into our instance, as RAGFlow takes them back;
    `elsewhere`: the address that it calls, where that is another reranker's."""

    release: Release
    there: bool = False
    differences: tuple[str, ...] = ()
    others: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    ids: frozenset[str] = frozenset()
    off: bool = False
    elsewhere: str = ""

    @property
    def as_wanted(self) -> bool:
        return self.there and not self.differences


def look(api: Api, entry: Entry) -> Standing:
    """Raises Unreachable, or Refused where RAGFlow cannot be read."""
    release = api.release()
    if release.generation is Generation.BY_HAND:
        return Standing(release=release, differences=(ABSENT,))
    return _table(api, entry, release) if release.generation is Generation.UPSERT else _instance(api, entry, release)


def _table(api: Api, entry: Entry, release: Release) -> Standing:
    found = api(calls.MY_MODELS) or {}
    rows = [row for row in (found.get(PROVIDER) or {}).get("llm") or [] if row.get("name") == stored_name(entry)]
    if not rows:
        return Standing(release=release, differences=(ABSENT,))
    row, off = rows[0], str(rows[0].get("status", "1")) == "0"
    elsewhere = str(row.get("api_base") or "")
    differences = [
        *_differs("base URL", row.get("api_base"), entry.base_url),
        *_differs("type", row.get("type"), MODEL_TYPE),
        *_differs("max tokens", row.get("max_tokens"), entry.max_tokens),
        *(["its model switched off"] if off else []),
        *_default(api, entry, release),
    ]
    ids = frozenset({stored_name(entry), model_id(release.generation, entry)})
    return Standing(release=release, there=True, differences=tuple(differences), ids=ids, off=off, elsewhere=_other(elsewhere, entry))


def _instance(api: Api, entry: Entry, release: Release) -> Standing:
    if entry.instance not in instance_names(api):
        return Standing(release=release, differences=(ABSENT,))
    shown = api(calls.instance(entry)) or {}
    models = [row for row in api(calls.models(entry)) or [] if isinstance(row, dict)]
    differences: list[str] = []
    # v0.26 shows neither of them
    elsewhere = str(shown.get("base_url") or "").rstrip("/")
    if "base_url" in shown:
        differences += _differs("base URL", str(shown["base_url"]).rstrip("/"), entry.base_url)
    if "api_key" in shown and shown["api_key"] != entry.key:
        differences.append("another key than apiKey")
    ours = next((row for row in models if row.get("name") == entry.model), None)
    off = False
    if ours is None:
        differences.append(f"no model {entry.model} in its instance")
    else:
        off = ours.get("status") == "inactive"
        types = ours.get("model_type")
        differences += _differs("type", types if isinstance(types, str) else ", ".join(sorted(types or [])), MODEL_TYPE)
        differences += _differs("max tokens", ours.get("max_tokens"), entry.max_tokens)
        differences += ["its model switched off"] if off else []
        differences += _default(api, entry, release)
    others = tuple(_taken_back(row) for row in models if row.get("name") != entry.model)
    uuids = {str(row["model_id"]) for row in api.rows(calls.RERANK_MODELS) if _is_ours(row, entry) and row.get("model_id")}
    ids = frozenset({model_id(release.generation, entry), *uuids})
    return Standing(release=release, there=True, differences=tuple(differences), others=others, ids=ids, off=off, elsewhere=_other(elsewhere, entry))


def _other(address: str, entry: Entry) -> str:
    return address if address.rstrip("/") != entry.base_url.rstrip("/") else ""


def instance_names(api: Api) -> list[str]:
    """Names of the instances under the provider, the user's own among them."""
    return [str(row.get("instance_name")) for row in api.rows(calls.INSTANCES)]


def _is_ours(row: Mapping[str, Any], entry: Entry) -> bool:
    return (row.get("provider_name"), row.get("instance_name"), row.get("name")) == (PROVIDER, entry.instance, entry.model)


def _taken_back(row: Mapping[str, Any]) -> dict[str, Any]:
    types = row.get("model_type")
    kinds = [types] if isinstance(types, str) else list(types or [])
    return {"model_name": row.get("name"), "model_type": kinds, "max_tokens": row.get("max_tokens") or 8192, "extra": dict(row.get("extra") or {})}


def _differs(what: str, seen: object, wanted: object) -> list[str]:
    return [] if seen == wanted else [f"{what} {seen if seen not in (None, '') else 'none'} instead of {wanted}"]


def _default(api: Api, entry: Entry, release: Release) -> list[str]:
    return ["another default rerank model of the tenant"] if entry.default and not is_default(api, entry, release) else []


def is_default(api: Api, entry: Entry, release: Release) -> bool:
    """Whether the tenant's default rerank model is ours."""
    if release.generation is Generation.UPSERT:
        _, known = tenant(api)
        return known.get("rerank_id") in (model_id(release.generation, entry), stored_name(entry))
    found = api(calls.DEFAULTS)
    rows: Iterable[Any] = (found.get("models") if isinstance(found, dict) else found) or []
    wanted = (PROVIDER, entry.instance, entry.model)
    return any(row.get("model_type") == MODEL_TYPE and _triple(row) == wanted for row in rows if isinstance(row, dict))


def _triple(row: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    return row.get("model_provider"), row.get("model_instance"), row.get("model_name")


def tenant(api: Api) -> tuple[tuple[str, str], Mapping[str, Any]]:
    """v0.24 and v0.25: the way in which the tenant's defaults are written, and what they are."""
    for read, way in calls.TENANT:
        try:
            return way, api(read) or {}
        except NoSuchRoute:
            continue
    raise Refused("it shows no defaults of the tenant")


def chats_using(api: Api, ids: frozenset[str]) -> list[str]:
    """Names of the chats whose rerank model is one of the ids; [] where RAGFlow does not show its chats."""
    names: list[str] = []
    for page in range(1, MOST_PAGES + 1):
        try:
            found = api(calls.chats(page))
        except Refused:
            break
        rows = found.get("chats") if isinstance(found, dict) else found
        chats = [row for row in rows or [] if isinstance(row, dict)]
        names += [str(chat.get("name") or chat.get("id")) for chat in chats if _rerankers(chat) & ids]
        if len(chats) < calls.PAGE:
            break
    return names


def _rerankers(chat: Mapping[str, Any]) -> set[str]:
    prompt = chat.get("prompt")
    older = prompt.get("rerank_model") if isinstance(prompt, dict) else None
    return {str(value) for value in (chat.get("rerank_id"), chat.get("tenant_rerank_id"), older) if value}
