"""A stand-in for RAGFlow's API server: the routes by which models are entered, as each generation of releases answers them. Shapes written from its documented behaviour.

    ragflow = RagflowApi("v0.27.0", verify=lambda *_: "")      # in process: ragflow.send(key) is a transport
    with served(ragflow) as url: ...                           # over HTTP on loopback
    python3 -m tests.support.ragflow_api v0.27.0               # in a container of its own, on port 9380

It holds one tenant. What a person does in the page is done to `instances`, `table`, `chats` and `default` directly.
"""

import json
import re
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from registration.calls import Call
from registration.transport import Answer, Transport

KEY = "ragflow-a-key-that-nobody-sees"
VERIFY_SECONDS = 10
TENANT = {"tenant_id": "t1", "llm_id": "chat@Ollama", "embd_id": "bge@Builtin", "asr_id": "", "img2txt_id": "", "tts_id": "", "name": "me"}
# what a trial of a model says: '' where it answered
Verify = Callable[[str, str, str], str]
Reply = tuple[int, dict[str, Any]]


@dataclass
class Model:
    types: list[str]
    max_tokens: int = 8192
    status: str = "active"
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Instance:
    name: str
    key: str = ""
    base_url: str = ""
    region: str = ""
    models: dict[str, Model] = field(default_factory=dict)


def called(url: str, key: str, model: str) -> str:
    """RAGFlow's trial: one rerank of one document within 10 s."""
    body = json.dumps({"model": model, "query": "What's the weather?", "documents": ["Is it sunny today?"], "top_n": 1}).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url.rstrip('/')}/rerank", data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=VERIFY_SECONDS) as answer:
            return "" if json.load(answer).get("results") else "no results"
    except urllib.error.HTTPError as error:
        with error:
            return f"status_code: {error.code}, body: {error.read().decode()}"
    except OSError as error:
        return str(error)


@dataclass
class RagflowApi:
    """`version` decides what it does, `says` what it gives as its version where that is another text. `verify` is told base URL, key and model."""

    version: str
    verify: Verify = called
    says: str = ""
    keys: set[str] = field(default_factory=lambda: {KEY})
    providers: set[str] = field(default_factory=set)
    instances: list[Instance] = field(default_factory=list)
    table: list[dict[str, Any]] = field(default_factory=list)
    default: str = ""
    chats: list[dict[str, str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @property
    def number(self) -> tuple[int, int]:
        found = re.match(r"v(\d+)\.(\d+)", self.version)
        assert found
        return int(found[1]), int(found[2])

    def named(self, name: str) -> Instance | None:
        return next((one for one in self.instances if one.name == name), None)

    def send(self, key: str = KEY) -> Transport:
        """A transport that does not leave the process."""

        def transport(call: Call) -> Answer:
            status, said = self.answer(call.method, call.path, key, json.loads(json.dumps(call.body)) if call.body is not None else {})
            return Answer(status=status, text=json.dumps(said))

        return transport

    def writes(self) -> list[str]:
        """What was asked that could have changed something."""
        return [line for line in self.asked if not line.startswith("GET ")]

    # -- how it answers --

    def answer(self, method: str, target: str, key: str, body: dict[str, Any]) -> Reply:
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        self.asked.append(f"{method} {path}")
        route = self._route(method, path)
        if route is None:
            return self._lost(method, path)
        if path != "/api/v1/system/version" and (self.number < (0, 24) or key not in self.keys):
            return (200 if self.number == (0, 22) else 401), {"code": 401, "message": "<Unauthorized '401: Unauthorized'>", "data": None}
        return route(body, query)

    def _lost(self, method: str, path: str) -> Reply:
        if any(self._route(other, path) for other in ("GET", "POST", "PUT", "DELETE", "PATCH")):
            return 200, {"code": 100, "message": "<MethodNotAllowed '405: Method Not Allowed'>", "data": None}
        return (200 if self.number == (0, 22) else 404), {"code": 404, "message": f"Not Found: {path}", "data": None, "error": "Not Found"}

    def _route(self, method: str, path: str) -> Callable[[dict[str, Any], dict[str, list[str]]], Reply] | None:
        asked = f"{method} {path}"
        version = "/v1/system/version" if self.number < (0, 25) else "/api/v1/system/version"
        common = {f"GET {version}": self._version, "GET /api/v1/chats": self._chats}
        if self.number < (0, 27):
            common |= {"GET /v1/llm/my_llms": self._my_llms, "POST /v1/llm/add_llm": self._add_llm, "POST /v1/llm/delete_llm": self._delete_llm}
            common |= {"POST /v1/llm/enable_llm": self._enable_llm}
        if self.number < (0, 25):
            common |= {"GET /v1/user/tenant_info": self._tenant, "POST /v1/user/set_tenant_info": self._set_tenant}
        else:
            common |= {"GET /api/v1/users/me/models": self._tenant, "PATCH /api/v1/users/me/models": self._set_tenant}
        if self.number < (0, 26):
            return common.get(asked)
        under = "/api/v1/providers/VLLM"
        common |= {
            "GET /api/v1/providers": lambda *_: yes([{"name": name} for name in sorted(self.providers)]),
            "PUT /api/v1/providers": self._add_provider,
            f"DELETE {under}": self._delete_provider,
            f"GET {under}/instances": self._list,
            f"POST {under}/instances": self._create,
            f"DELETE {under}/instances": self._drop,
            f"POST {under}/connection": self._connection,
            "GET /api/v1/models": self._models,
            "GET /api/v1/models/default": self._get_default,
            "PATCH /api/v1/models/default": self._set_default,
        }
        if found := common.get(asked):
            return found
        one = re.fullmatch(rf"(GET|PUT|PATCH) {under}/instances/([^/]+)(/models)?(?:/(.+))?", asked)
        if not one:
            return None
        name, last = unquote(one[2]), unquote(one[4] or "")
        kind = (one[1], bool(one[3]), bool(last))
        if kind == ("PUT", False, False) and self.number < (0, 27):
            return None
        return {
            ("GET", False, False): lambda *_: self._show(name),
            ("PUT", False, False): lambda body, _: self._change(name, body),
            ("GET", True, False): lambda *_: self._show_models(name),
            ("PATCH", True, True): lambda body, _: self._patch(name, last, body),
        }.get(kind)

    def _version(self, *_: Any) -> Reply:
        return yes(self.says or self.version)

    def _chats(self, _: Any, query: dict[str, list[str]]) -> Reply:
        page, size = int(query["page"][0]), int(query["page_size"][0])
        shown = self.chats[(page - 1) * size : page * size]
        if self.number < (0, 25):
            return yes([{"name": chat["name"], "prompt": {"rerank_model": chat["rerank_id"]}} for chat in shown])
        return yes({"chats": shown, "total": len(self.chats)})

    def _fault(self, base_url: str, key: str, model: str) -> str:
        said = self.verify(base_url, key, model) if key else "Illegal header value b'Bearer '"
        return f"\nFail to access model(VLLM/{model}).{said}" if said else ""

    # -- up to v0.25 --

    def _my_llms(self, *_: Any) -> Reply:
        found: dict[str, Any] = {}
        for row in self.table:
            shown = {"name": row["llm_name"], "type": row["model_type"], **{key: row[key] for key in ("api_base", "max_tokens", "status")}}
            found.setdefault(row["llm_factory"], {"tags": "LLM", "llm": []})["llm"].append(shown)
        return yes(found)

    def _add_llm(self, body: dict[str, Any], _: Any) -> Reply:
        if self.number >= (0, 26):
            return no("LLM factory VLLM is not allowed")
        if fault := self._fault(body["api_base"], body["api_key"], body["llm_name"]):
            return no(fault)
        row = {**body, "llm_name": f"{body['llm_name']}___VLLM"}
        for old in self.table:
            if (old["llm_factory"], old["llm_name"]) == (row["llm_factory"], row["llm_name"]):
                old.update(row)
                return yes(True)
        self.table.append({**row, "status": "1"})
        return yes(True)

    def _delete_llm(self, body: dict[str, Any], _: Any) -> Reply:
        self.table = [row for row in self.table if (row["llm_factory"], row["llm_name"]) != (body["llm_factory"], body["llm_name"])]
        return yes(True)

    def _enable_llm(self, body: dict[str, Any], _: Any) -> Reply:
        for row in self.table:
            if (row["llm_factory"], row["llm_name"]) == (body["llm_factory"], body["llm_name"]):
                row["status"] = str(body["status"])
        return yes(True)

    def _tenant(self, *_: Any) -> Reply:
        return yes({**TENANT, "rerank_id": self.default})

    def _set_tenant(self, body: dict[str, Any], _: Any) -> Reply:
        for name in ("tenant_id", "llm_id", "embd_id", "asr_id", "img2txt_id"):
            if name not in body:
                return 200, {"code": 101, "message": f"required argument are missing: {name}", "data": None}
            assert body[name] == TENANT[name], "another default of the tenant was changed"
        self.default = body["rerank_id"]
        return yes(True)

    # -- v0.26 and later --

    def _add_provider(self, body: dict[str, Any], _: Any) -> Reply:
        name = body["provider_name"]
        if name != "VLLM":
            return no(f"Provider '{name}' is not allowed")
        if name in self.providers:
            return no(f"Provider {name} already exists")
        self.providers.add(name)
        return yes()

    def _delete_provider(self, *_: Any) -> Reply:
        self.providers.clear()
        self.instances.clear()
        return yes()

    def _list(self, *_: Any) -> Reply:
        if "VLLM" not in self.providers:
            return no("No provider found for provider 'VLLM'")
        return yes([{"id": f"id-{one.name}", "instance_name": one.name, "region": one.region, "status": "active"} for one in self.instances])

    def _create(self, body: dict[str, Any], _: Any) -> Reply:
        if "VLLM" not in self.providers:
            return no("Provider 'VLLM' does not exist")
        if body["instance_name"] == "default":
            return no("Instance name cannot be 'default'")
        url, first = normal(body["base_url"]), body["model_info"][0]
        if fault := self._fault(url, body["api_key"] or "x", first["model_name"]):
            return no(fault)
        name, made = body["instance_name"], body["instance_name"]
        count = 0
        while self.named(made):
            count += 1
            made = f"{name}({count})"
        self.instances.append(Instance(made, key=body["api_key"] or "x", base_url=url, region=body.get("region", "")))
        faults = ""
        for model in body["model_info"]:
            target = self.named(name)  # by the name that was asked for: the first of them
            assert target
            if model["model_name"] in target.models:
                faults += f"Model '{model['model_name']}' already exists for provider 'VLLM' and instance '{name}'"
            else:
                target.models[model["model_name"]] = Model(list(model["model_type"]), model["max_tokens"], extra=model.get("extra") or {})
        return no(faults) if faults else yes()

    def _connection(self, body: dict[str, Any], _: Any) -> Reply:
        fault = self._fault(normal(body["base_url"]), body["api_key"] or "x", body["model_info"][0]["model_name"])
        return no(fault) if fault else yes()

    def _change(self, name: str, body: dict[str, Any]) -> Reply:
        one = self.named(name)
        if one is None:
            return no(f"No instance found for provider 'VLLM' and instance '{name}'")
        if body.get("verify", True) and (fault := self._fault(normal(body["base_url"]), body["api_key"] or "x", body["model_info"][0]["model_name"])):
            return no(fault)
        if not body.get("verify", True) and any("extra" not in model for model in body["model_info"]):
            return no("Internal server error")
        one.name, one.key, one.base_url = body["instance_name"], body["api_key"] or "x", normal(body["base_url"])
        kept = {model["model_name"]: one.models.get(model["model_name"]) for model in body["model_info"]}
        one.models = {
            model["model_name"]: Model(
                list(model["model_type"]),
                model["max_tokens"],
                old.status if (old := kept[model["model_name"]]) else "active",
                without(model.get("extra"), "max_tokens"),
            )
            for model in body["model_info"]
        }
        return yes()

    def _drop(self, body: dict[str, Any], _: Any) -> Reply:
        lost = [name for name in body["instances"] if not self.named(name)]
        if lost:
            return no(f"No instance found for provider 'VLLM' and instance '{lost}'")
        self.instances = [one for one in self.instances if one.name not in body["instances"]]
        return yes()

    def _show(self, name: str) -> Reply:
        one = self.named(name)
        if one is None:
            return no(f"No instance found for provider 'VLLM' and instance '{name}'")
        shown = {"id": f"id-{name}", "instance_name": name, "provider_id": "p1", "region": one.region, "status": "active"}
        return yes({**shown, "base_url": one.base_url, "api_key": one.key} if self.number >= (0, 27) else shown)

    def _show_models(self, name: str) -> Reply:
        one = self.named(name)
        if one is None:
            return no(f"No instance found for provider 'VLLM' and instance '{name}'")
        rows = [
            {"name": model, "model_type": held.types, "max_tokens": held.max_tokens, "status": held.status}
            | ({"extra": {"max_tokens": held.max_tokens, **held.extra}} if self.number >= (0, 27) else {})
            for model, held in one.models.items()
        ]
        return yes(rows)

    def _models(self, _: Any, query: dict[str, list[str]]) -> Reply:
        kind = query["type"][0]
        rows = [
            {"name": model, "model_type": held.types, "provider_name": "VLLM", "instance_name": one.name}
            for one in self.instances for model, held in one.models.items() if kind in held.types
        ]  # fmt: skip
        return yes([{**row, "model_id": f"uuid-{row['name']}"} for row in rows] if self.number >= (0, 27) else rows)

    def _patch(self, name: str, model: str, body: dict[str, Any]) -> Reply:
        one = self.named(name)
        if one is None or model not in one.models:
            return no("not found")
        one.models[model].status = body["status"]
        return yes()

    def _get_default(self, *_: Any) -> Reply:
        if not self.default:
            return yes({"models": []})
        model, instance, provider = self.default.rsplit("@", 2)
        return yes(
            {"models": [{"model_type": "rerank", "model_provider": provider, "model_instance": instance, "model_name": model, "enable": True}]}
        )

    def _set_default(self, body: dict[str, Any], _: Any) -> Reply:
        named = [body.get(f"model_{part}") or "" for part in ("name", "instance", "provider")]
        if any(named) and not ((one := self.named(named[1])) and named[0] in one.models):
            return no("model is not available")
        self.default = "@".join(named) if any(named) else ""
        return yes()


def yes(data: Any = None) -> Reply:
    return 200, {"code": 0, "message": "success", **({"data": data} if data is not None else {})}


def no(message: str) -> Reply:
    return 200, {"code": 102, "message": message}


def without(extra: dict[str, Any] | None, *names: str) -> dict[str, Any]:
    return {key: value for key, value in (extra or {}).items() if key not in names}


def normal(url: str) -> str:
    url = url.strip().rstrip("/")
    return url if url.endswith("/v1") else f"{url}/v1"


@contextmanager
def served(ragflow: RagflowApi, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Its address while it answers over HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            key = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            status, said = ragflow.answer(self.command, self.path, key, json.loads(body) if body else {})
            text = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = reply

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer((host, port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


if __name__ == "__main__":
    with served(RagflowApi(sys.argv[1], providers={"VLLM"}, instances=[Instance("theirs", "k")]), host="0.0.0.0", port=9380):
        threading.Event().wait()
