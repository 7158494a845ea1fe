"""RAGFlow's requests, release by release. Pure: what is asked, not how it is sent or what is made of the answer."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from registration.entry import MODEL_TYPE, PROVIDER, Entry
from registration.releases import stored_name

VERSIONS = ("/api/v1/system/version", "/v1/system/version")  # since v0.25, and before
PAGE = 30


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request. `body` may hold a key."""

    method: str
    path: str
    body: Mapping[str, Any] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def get(path: str) -> Call:
    return Call(method="GET", path=path)


# -- v0.26 and later: a provider has instances, an instance has models --------------------------------------------------

PROVIDERS = "/api/v1/providers"
_INSTANCES = f"{PROVIDERS}/{PROVIDER}/instances"
DEFAULTS = get("/api/v1/models/default")
RERANK_MODELS = get(f"/api/v1/models?type={MODEL_TYPE}")
INSTANCES = get(_INSTANCES)


def add_provider() -> Call:
    """Harmless where it is there already (code 102)."""
    return Call(method="PUT", path=PROVIDERS, body={"provider_name": PROVIDER})


def instance(entry: Entry) -> Call:
    return get(_named(entry.instance))


def models(entry: Entry) -> Call:
    return get(f"{_named(entry.instance)}/models")


def create(entry: Entry, others: Iterable[Mapping[str, Any]] = ()) -> Call:
    """Not to be sent twice: the second one is refused and leaves an empty '<name>(1)' behind."""
    return Call(method="POST", path=_INSTANCES, body={**_body(entry, others), "region": "default"})


def change(entry: Entry, others: Iterable[Mapping[str, Any]] = ()) -> Call:
    """v0.27: drops the models that it does not name, so it names the ones that a person added too."""
    return Call(method="PUT", path=_named(entry.instance), body=_body(entry, others))


def verify(entry: Entry) -> Call:
    """RAGFlow's own trial of the address and key, without storing anything."""
    body = _body(entry, ())
    return Call(method="POST", path=f"{PROVIDERS}/{PROVIDER}/connection", body={key: body[key] for key in ("api_key", "base_url", "model_info")})


def drop(*names: str) -> Call:
    """Of instances, by name. Never of the provider: that would take the user's other instances along."""
    return Call(method="DELETE", path=_INSTANCES, body={"instances": list(names)})


def switch_on(entry: Entry) -> Call:
    return Call(method="PATCH", path=f"{_named(entry.instance)}/models/{quote(entry.model, safe='')}", body={"status": "active"})


def make_default(entry: Entry) -> Call:
    named = {"model_provider": PROVIDER, "model_instance": entry.instance, "model_name": entry.model}
    return Call(method="PATCH", path=DEFAULTS.path, body={"model_type": MODEL_TYPE, **named})


def no_default() -> Call:
    named = {"model_provider": "", "model_instance": "", "model_name": ""}
    return Call(method="PATCH", path=DEFAULTS.path, body={"model_type": MODEL_TYPE, **named})


def _named(name: str) -> str:
    return f"{_INSTANCES}/{quote(name, safe='')}"


def _body(entry: Entry, others: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    # v0.27 reads `extra` without looking whether it is there.
    ours = {"model_type": [MODEL_TYPE], "model_name": entry.model, "max_tokens": entry.max_tokens, "extra": {}}
    return {"instance_name": entry.instance, "api_key": entry.key, "base_url": entry.base_url, "model_info": [ours, *others]}


# -- v0.24 and v0.25: a table of models ---------------------------------------------------------------------------------

MY_MODELS = get("/v1/llm/my_llms?include_details=true")


def upsert(entry: Entry) -> Call:
    body = {
        "llm_factory": PROVIDER, "llm_name": entry.model, "model_type": MODEL_TYPE, "api_base": entry.base_url, "api_key": entry.key,
        "max_tokens": entry.max_tokens,
    }  # fmt: skip
    return Call(method="POST", path="/v1/llm/add_llm", body=body)


def try_upsert(entry: Entry) -> Call:
    """RAGFlow's own trial, without storing anything."""
    call = upsert(entry)
    return Call(method=call.method, path=call.path, body={**(call.body or {}), "verify": True})


def delete(entry: Entry) -> Call:
    return Call(method="POST", path="/v1/llm/delete_llm", body={"llm_factory": PROVIDER, "llm_name": stored_name(entry)})


def enable(entry: Entry) -> Call:
    return Call(method="POST", path="/v1/llm/enable_llm", body={"llm_factory": PROVIDER, "llm_name": stored_name(entry), "status": "1"})


# read and written as a whole: (the way to read it, the way to write it), since v0.25.1 and before
TENANT = ((get("/api/v1/users/me/models"), ("PATCH", "/api/v1/users/me/models")), (get("/v1/user/tenant_info"), ("POST", "/v1/user/set_tenant_info")))
_TENANT_FIELDS = ("tenant_id", "llm_id", "embd_id", "asr_id", "img2txt_id")


def write_tenant(way: tuple[str, str], known: Mapping[str, Any], rerank_id: str) -> Call:
    """The tenant's defaults with another rerank model: the others must be named, as they are."""
    return Call(method=way[0], path=way[1], body={**{name: known.get(name) or "" for name in _TENANT_FIELDS}, "rerank_id": rerank_id})


# -- all of them --------------------------------------------------------------------------------------------------------


def chats(page: int) -> Call:
    return get(f"/api/v1/chats?page={page}&page_size={PAGE}")
