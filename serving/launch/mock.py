"""`mock`: the service around an engine without a model, so that the mock has the real service's contract. Served by uvicorn, as vLLM's is."""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import uvicorn

from serving import dials, keys
from serving.asgi import App, Message, Receive, Send
from serving.engines.mock import MockEngine
from serving.launch.machine import every_address
from serving.options import Address, ServiceOptions
from serving.web.service import Service

VERSION = "0.32.0+mock"
TOKENS_PER_PASS = 4096
# What the service is told of the mock's speed, as if one second of work had shown it: else a stall of a busy machine would cut documents.
TOKENS_PER_SECOND = 1_000_000
STOP_SECONDS = 10
IDLE_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class MockOptions(ServiceOptions, Address):
    """The mock command's arguments: the service's, and where to listen outside a container; port 0 is a free one."""


class Inner:
    """The app inside the service: vLLM's lists of models and metrics, and its version (ASGI)."""

    def __init__(self, names: tuple[str, ...], max_model_len: int) -> None:
        self.names, self.max_model_len, self.created = names, max_model_len, int(time.time())
        self.counts: dict[str, int] = {}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await _live(receive, send)
        path = scope["path"]
        self.counts[path] = self.counts.get(path, 0) + 1
        if path == "/metrics":
            kind, body = "text/plain; version=0.0.4; charset=utf-8", self.metrics()
        else:
            kind, body = "application/json", json.dumps(self.models() if path == "/v1/models" else {"version": VERSION})
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind.encode())]})
        await send({"type": "http.response.body", "body": body.encode()})

    def metrics(self) -> str:
        lines = ["# HELP http_requests_total Total number of requests by method, status and handler.", "# TYPE http_requests_total counter"]
        lines += [f'http_requests_total{{handler="{path}",method="GET",status="2xx"}} {count:.1f}' for path, count in sorted(self.counts.items())]
        return "\n".join(lines) + "\n"

    def models(self) -> dict[str, Any]:
        permission = {
            "object": "model_permission",
            "created": self.created,
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        model = {"object": "model", "created": self.created, "owned_by": "vllm", "root": "mock", "parent": None, "max_model_len": self.max_model_len}
        return {
            "object": "list",
            "data": [
                {"id": name, **model, "permission": [{"id": f"modelperm-{number:016x}", **permission}]} for number, name in enumerate(self.names)
            ],
        }


async def _live(receive: Receive, send: Send) -> None:
    """What an app says when it starts and stops."""
    for moment in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{moment}.complete"})


def build(options: ServiceOptions) -> Service:
    """The service around the mock's engine; keys.BadKeys where its key file cannot be used."""
    # Shared words reach no band of a model's, whose name the mock may bear.
    options = dials.take(ServiceOptions, options, golden_check=False, tokens_per_pass=TOKENS_PER_PASS)
    service = Service(Inner(options.served_model_names, options.max_model_len), options, lambda _: MockEngine(options.max_model_len))
    service.scheduler.speed.learn(TOKENS_PER_SECOND, 1.0)
    return service


def server(app: App) -> uvicorn.Server:
    """Serves `app` until it is told to stop; running answers get STOP_SECONDS to end."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http="h11",
            loop="asyncio",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=128, dualstack_ipv6=host == "::")


def run(options: MockOptions) -> int:
    """Serves until SIGTERM or SIGINT. Status 1 and one sentence where key file or port cannot be used."""
    try:
        service = build(options)
        listener = listen(options.host or every_address(), options.port)
    except keys.BadKeys as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        where = f"{options.host}:{options.port}" if options.host else f"port {options.port}"
        print(f"The mock cannot listen on {where} ({reason}); the port must be free: stop what uses it.", file=sys.stderr)
        return 1
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio does not for a socket that it did not make: each answer would wait 40 ms
    serving = server(service)

    def stop(*_: object) -> None:
        serving.should_exit = True

    # Before anyone is told that it listens. uvicorn puts its own in their place, and raises the signal for these once more at its end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    said = {"mock": options.served_model_names, "listening": "{}:{}".format(*listener.getsockname()[:2]), "key": bool(service.keys)}
    print(json.dumps(said), flush=True)
    serving.run(sockets=[listener])
    print(json.dumps({"mock": "stopped"}), flush=True)
    return 0


def main(argv: Sequence[str]) -> int:
    return run(dials.read(MockOptions, argv, prog="serving mock"))
