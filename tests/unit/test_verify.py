"""setup/probe.py against servers and RAGFlow's own client, and setup/verify.py: from where is asked, and a sentence for each fault."""

import ast
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from setup import probe, verify
from setup.edge import Edge, Result
from setup.verify import Seen, Shown, Target
from tests.support import ragflow_client
from tests.unit.builders import a_container, a_ragflow

NAME, MODEL = "ragflow-vllm-reranker", "qwen3-reranker-0.6b"
URL = f"http://{NAME}:8000/v1"
LISTED = json.dumps({"data": [{"id": MODEL}]})
RANKED = json.dumps({"results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]})
METRICS = "# HELP reranker_tokens_per_second x\nreranker_tokens_per_second 641.5\nreranker_proven 1.0\n"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@contextlib.contextmanager
def serving(answers: Mapping[str, tuple[int, str]], headers: Mapping[str, str] | None = None) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """A server on the loopback: its port, and what it was asked. Whatever it has no answer for is a 404."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append(
                {
                    "method": self.command,
                    "path": self.path,
                    "body": body,
                    "key": self.headers.get("Authorization"),
                    "type": self.headers.get("Content-Type"),
                }
            )
            status, text = answers.get(self.path, (404, "no such page"))
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = _answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port, asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


WELL = {"/v1/models": (200, LISTED), "/v1/rerank": (200, RANKED), "/metrics": (200, METRICS)}


# -- the probe ----------------------------------------------------------------------------------------------------------


def test_the_probe_asks_what_ragflows_vllm_factory_asks() -> None:
    with serving(WELL) as (port, asked):
        ragflow_client.rerank(f"http://127.0.0.1:{port}/v1", MODEL, "sk-1", probe.QUERY, probe.DOCUMENTS)
        probe.report(f"http://127.0.0.1:{port}/v1", MODEL, "sk-1", True)
    theirs, ours = [one for one in asked if one["path"] == "/v1/rerank"]
    assert json.loads(ours.pop("body")) == json.loads(theirs.pop("body"))
    assert ours == theirs


def test_the_probe_reports_models_rerank_and_the_speed_that_was_learned() -> None:
    with serving(WELL) as (port, asked):
        report = probe.report(f"http://127.0.0.1:{port}/v1", MODEL, "x", True)
    assert (report["proxy"], report["addresses"], report["tokens_per_second"]) == ([], ["127.0.0.1"], 641.5)
    assert (report["models"]["status"], report["models"]["text"], report["rerank"]["text"]) == (200, LISTED, RANKED)
    assert [one["path"] for one in asked] == ["/v1/models", "/v1/rerank", "/metrics"]
    assert {one["key"] for one in asked} == {"Bearer x"}


def test_the_probe_reports_a_refusal_with_its_text_and_a_service_without_metrics() -> None:
    with serving({"/v1/models": (401, '{"error": "Unauthorized"}')}, {"X-Rerank-Unhealthy": "the template is missing"}) as (port, _):
        report = probe.report(f"http://127.0.0.1:{port}/v1", MODEL, "x", True)
    assert (report["models"]["status"], report["models"]["text"]) == (401, '{"error": "Unauthorized"}')
    assert (report["rerank"]["status"], report["rerank"]["unhealthy"], report["tokens_per_second"]) == (404, "the template is missing", 0.0)


def test_the_probe_ends_where_nothing_listens() -> None:
    with socket.socket() as idle:
        idle.bind(("127.0.0.1", 0))
        report = probe.report(f"http://127.0.0.1:{idle.getsockname()[1]}/v1", MODEL, "x", True)
    assert report["models"] == {"status": 0, "text": "", "failure": "Connection refused"}
    assert "rerank" not in report


def test_the_probe_ends_where_the_name_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    assert probe.report(URL, MODEL, "x", True) == {"proxy": [], "no_proxy": "", "unresolved": "Name or service not known"}


def test_the_probe_gives_up_on_a_server_that_says_nothing() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        answer = probe.ask(f"http://127.0.0.1:{silent.getsockname()[1]}/", "x", True, 0.05)
    assert answer == {"status": 0, "text": "", "failure": "no answer within 0.05 s"}


def test_the_probe_gives_up_on_a_server_that_speaks_something_else() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        answer = probe.ask(f"http://127.0.0.1:{listener.getsockname()[1]}/", "x", True, 5)
        thread.join()
    assert (answer["status"], "220 mail.example" in answer["failure"]) == (0, True)


def test_a_python_reads_the_probe_from_its_standard_input_and_the_jobs_proxies_stand_for_its_own() -> None:
    with serving(WELL) as (port, asked):
        url = f"http://127.0.0.1:{port}/v1"
        target = Target(url=url, host_url="", model=MODEL, key="sk-\"quoted'\\")
        for given, expected in ((None, ["http_proxy", "http://of-its-own:1"]), ({"HTTP_PROXY": "me:pw@job:2"}, ["HTTP_PROXY", "me:pw@job:2"])):
            done = subprocess.run(
                [sys.executable, "-I", "-"], input=verify.script(target, environment=given, direct=True), capture_output=True, text=True, timeout=60,
                env={"http_proxy": "http://of-its-own:1", "PATH": ""}, check=True,
            )  # fmt: skip
            report = verify.report_of(Result(0, done.stdout))
            assert isinstance(report, dict)
            assert report["proxy"] == expected
            assert report["rerank"]["status"] == 200
    assert {one["key"] for one in asked} == {"Bearer sk-\"quoted'\\"}


def test_an_old_python_in_a_container_can_read_the_probe() -> None:
    ast.parse(verify.PROBE.read_text(encoding="utf-8"), feature_version=(3, 7))


# environment, and whether RAGFlow's client sends the call to the proxy
PROXIED: list[tuple[dict[str, str], bool]] = [
    ({}, False),
    ({"http_proxy": "P"}, True),
    ({"HTTP_PROXY": "P"}, True),
    ({"https_proxy": "P"}, False),
    ({"all_proxy": "P"}, True),
    ({"http_proxy": "", "HTTP_PROXY": "P"}, False),
    ({"http_proxy": "P", "no_proxy": NAME}, False),
    ({"http_proxy": "P", "NO_PROXY": f"localhost, {NAME}"}, False),
    ({"http_proxy": "P", "no_proxy": "localhost", "NO_PROXY": NAME}, True),
    ({"http_proxy": "P", "no_proxy": f"{NAME}:8000"}, False),
    ({"http_proxy": "P", "no_proxy": f"{NAME}:9000"}, True),
    ({"http_proxy": "P", "no_proxy": f".{NAME}"}, True),
    ({"http_proxy": "P", "no_proxy": "vllm-reranker"}, True),
    ({"http_proxy": "P", "no_proxy": "172.16.0.0/12,.local"}, True),
    ({"http_proxy": "P", "no_proxy": "*"}, False),
    ({"http_proxy": "P", "no_proxy": f"http://{NAME}"}, False),
]  # fmt: skip


@pytest.mark.parametrize(("environment", "proxied"), PROXIED)
def test_the_probe_knows_which_proxies_ragflows_client_obeys(environment: dict[str, str], proxied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo
    with serving(WELL) as (straight, to_it), serving({f"{URL}/rerank": (200, RANKED)}) as (proxy, to_proxy):

        def near(host: Any, port: Any, *more: Any, **options: Any) -> Any:
            return resolve("127.0.0.1", straight, *more, **options) if host == NAME else resolve(host, port, *more, **options)

        monkeypatch.setattr(socket, "getaddrinfo", near)
        for name, value in environment.items():
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}" if value == "P" else value)
        ragflow_client.rerank(URL, MODEL, "x", "q", ["a", "b"])
        assert (len(to_it), len(to_proxy)) == (not proxied, proxied), "what the client does"
        assert bool(probe.proxy(URL)) == proxied


def test_a_proxy_is_named_by_its_variable_and_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://me:s3cret@proxy.corp:3128")
    assert probe.proxy(URL) == ["HTTP_PROXY", "http://proxy.corp:3128"]


# -- from where ---------------------------------------------------------------------------------------------------------

NET = {"docker-ragflow": ()}
OWN = Seen(container=a_container(NAME, networks=NET), image_id="sha256:ours", addresses=("172.18.0.2",))
TARGET = Target(url=URL, host_url="http://127.0.0.1:8123/v1", model=MODEL, container=NAME, network="docker-ragflow")


def a_target(**changes: Any) -> Target:
    return Target(**{**vars(TARGET), **changes})


def on_it(name: str = "docker-ragflow-cpu-1", **more: Any) -> Seen:
    return Seen(container=a_ragflow(name, networks={"docker_ragflow": (), **NET}), **more)


def off_it(name: str = "docker-ragflow-cpu-1", **more: Any) -> Seen:
    return Seen(container=a_ragflow(name), **more)


AGAIN = "it was made anew or cut off since the last up; run make up again"
CHOSEN: list[tuple[str, Sequence[Seen], Target, list[str], list[tuple[str, str, str]]]] = [
    ("all that are on the network are asked", [OWN, on_it(), on_it("kb-ragflow-gpu-1")], TARGET, ["docker-ragflow-cpu-1", "kb-ragflow-gpu-1"], []),
    ("what is no RAGFlow is not", [OWN, Seen(container=a_container("ragflow-mysql", networks=NET))], TARGET, [],
     [("RAGFlow", "note", "no container of it on this host: start it, then run make up again (ragflowContainers names others)")]),
    ("a stopped one is told", [OWN, off_it(state="exited"), on_it("two-ragflow-1")], TARGET, ["two-ragflow-1"],
     [("inside docker-ragflow-cpu-1", "note", "it is not running (exited), so nothing was asked from there")]),
    ("a restarting one is told", [OWN, on_it(state="restarting")], TARGET, [],
     [("inside docker-ragflow-cpu-1", "note", "it is not running (restarting), so nothing was asked from there")]),
    ("one that was made anew is wrong", [OWN, off_it()], a_target(attached=["docker-ragflow-cpu-1"]), [],
     [("inside docker-ragflow-cpu-1", "WRONG", f"it is not on the network docker-ragflow: {AGAIN}")]),
    ("one that is gone is wrong", [OWN], a_target(attached=["docker-ragflow-cpu-1"]), [],
     [("inside docker-ragflow-cpu-1", "WRONG", "there is no such container any more: start RAGFlow, then run make up again")]),
    ("one on the host's network is told what it needs", [OWN, off_it(network_mode="host")], TARGET, [],
     [("inside docker-ragflow-cpu-1", "WRONG", "it runs with network_mode: host, where the name is not known: set ragflowMode to none and give RAGFlow the base "
       "URL http://127.0.0.1:8123/v1")]),
    ("and asked by the published port where it is left alone", [OWN, off_it(network_mode="host")], a_target(mode="none"), ["docker-ragflow-cpu-1"], []),
    ("but not where none is published", [OWN, off_it(network_mode="host")], a_target(mode="none", host_url=""), [],
     [("inside docker-ragflow-cpu-1", "note", "it is not on the network docker-ragflow: ragflowMode none leaves that to you")]),
    ("one in another's network is told whose", [OWN, off_it(network_mode="container:abc")], TARGET, [],
     [("inside docker-ragflow-cpu-1", "WRONG", "it uses another container's network: that one must be attached, name it in ragflowContainers")]),
    ("only the named ones are asked where some are named", [OWN, on_it(), Seen(container=a_container("mine", networks=NET))], a_target(named=["mine"]), ["mine"], []),
    ("what is left out by name is no fault", [OWN, off_it(), on_it("two-ragflow-1")], a_target(named=["two-ragflow-1"]), ["two-ragflow-1"], []),
    ("in mode join the others are told", [OWN, on_it(), off_it("two-ragflow-1")], a_target(mode="join"), ["docker-ragflow-cpu-1"],
     [("inside two-ragflow-1", "note", "it is not on the network docker-ragflow: ragflowMode join leaves that to you")]),
    ("in mode none no RAGFlow is no news", [OWN], a_target(mode="none"), [], []),
    ("without the reranker nobody is asked", [on_it()], TARGET, [], [(NAME, "WRONG", "there is no such container: run make up again")]),
    ("nor where it stopped", [Seen(container=a_container(NAME), state="exited"), on_it()], TARGET, [],
     [(NAME, "WRONG", f"the reranker's container does not run (exited): `docker logs {NAME}` says why, make up starts it again")]),
    ("nor where it was cut off", [Seen(container=a_container(NAME)), on_it()], TARGET, [],
     [(NAME, "WRONG", "the reranker's container is not on the network docker-ragflow: run make up again")]),
]  # fmt: skip


@pytest.mark.parametrize(("what", "seen", "target", "asked", "shown"), CHOSEN, ids=[what for what, *_ in CHOSEN])
def test_from_where_it_is_asked(what: str, seen: Sequence[Seen], target: Target, asked: list[str], shown: list[tuple[str, str, str]]) -> None:
    said, chosen, _ = verify.choose(seen, target)
    assert ([one.name for one in chosen], [(one.where, one.level, one.text) for one in said]) == (asked, shown), what


class Docker(Edge):
    """An Edge whose programs answer by the words in their command line."""

    def __init__(self, **answers: Result) -> None:
        super().__init__(root=Path("/"), home=Path("/"), env={})
        self.answers = answers
        self.ran: list[list[str]] = []
        self.fed: list[str] = []

    def run(self, argv: Sequence[str], timeout: float, stdin: str = "") -> Result:
        self.ran.append(list(argv))
        self.fed.append(stdin)
        return next((answer for word, answer in self.answers.items() if word in argv), Result(0))


NO_PYTHON = Result(126, "", 'OCI runtime exec failed: exec: "python3": executable file not found in $PATH')
ANSWERED = Result(0, 'a warning of its own\n{"proxy": []}\n')


def test_a_container_without_python_is_asked_for_by_one_of_our_image_in_its_network_under_its_proxies() -> None:
    one = on_it(environment={"http_proxy": "http://me:s3cret@p:1", "PATH": "/bin"})
    edge = Docker(exec=NO_PYTHON, run=ANSWERED)
    assert verify.ask_inside(edge, a_target(key="sk-1"), one, "sha256:ours") == {"proxy": []}
    assert edge.ran[0] == ["docker", "exec", "--interactive", one.container.id, "python3", "-"]
    assert edge.ran[1][:9] == [
        "docker",
        "run",
        "--rm",
        "--interactive",
        "--pull",
        "never",
        "--network",
        f"container:{one.container.id}",
        "--entrypoint",
    ]
    assert edge.ran[1][-2:] == ["sha256:ours", "-"]
    assert "s3cret" not in str(edge.ran)
    assert "sk-1" not in str(edge.ran)
    assert '"environment": null' in edge.fed[0]
    assert "s3cret" not in edge.fed[0]
    assert "http://me:s3cret@p:1" in edge.fed[1]
    assert "PATH" not in edge.fed[1].splitlines()[-1]


def test_a_container_with_python_is_asked_once() -> None:
    edge = Docker(exec=ANSWERED)
    assert verify.ask_inside(edge, TARGET, on_it(), "sha256:ours") == {"proxy": []}
    assert len(edge.ran) == 1


def test_a_container_that_hangs_is_not_asked_twice() -> None:
    edge = Docker(exec=Result(124, err="no end within 120 s"))
    assert verify.ask_inside(edge, TARGET, on_it(), "sha256:ours") == "could not be asked: no end within 120 s"
    assert len(edge.ran) == 1


def test_a_container_that_cannot_be_asked_either_way_says_both_reasons() -> None:
    answer = verify.ask_inside(Docker(exec=NO_PYTHON, run=Result(125, "", "docker: Error: no such image")), TARGET, on_it(), "sha256:ours")
    assert isinstance(answer, str)
    assert answer.startswith("could not be asked: its python3: OCI runtime exec failed")
    assert answer.endswith("; a container of the reranker's image in its network: docker: Error: no such image")


# -- judging ------------------------------------------------------------------------------------------------------------


def answered(text: str, status: int = 200, **more: Any) -> dict[str, Any]:
    return {"status": status, "text": text, "failure": "", "unhealthy": "", "seconds": 0.21, **more}


def silent(failure: str) -> dict[str, Any]:
    return {"status": 0, "text": "", "failure": failure}


def a_report(**changes: Any) -> dict[str, Any]:
    well = {
        "proxy": [],
        "no_proxy": "",
        "addresses": ["172.18.0.2"],
        "models": answered(LISTED),
        "rerank": answered(RANKED),
        "tokens_per_second": 640.0,
    }
    return {**well, **changes}


def said(report: dict[str, Any], **options: Any) -> list[Shown]:
    return verify.judge("inside it", report, TARGET, **options)


def test_a_right_answer_is_told_with_its_scores_and_its_time() -> None:
    assert said(a_report()) == [Shown("inside it", "right", "the document about Paris scored 0.900, the other 0.100, in 0.21 s")]


def ranked(*pairs: tuple[int, float]) -> str:
    return json.dumps({"results": [{"index": index, "relevance_score": score} for index, score in pairs]})


STOLEN = "something else answers under that name"
KEY = "the stack's apiKey is another than the one the reranker was started with: run make up again"
FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"unresolved": "Name or service not known"},
     f"the name {NAME} does not resolve there (Name or service not known), although both are on docker-ragflow: Docker's resolver 127.0.0.11 is not asked; "
     "look into its /etc/resolv.conf, and remove what mounts or rewrites that"),
    ({"addresses": ["10.0.0.9"]}, f"the name {NAME} leads to 10.0.0.9 there and not to the reranker at 172.18.0.2"),
    ({"models": silent("Connection refused")}, f"GET {URL}/models: Connection refused; the reranker is starting or stopping: docker ps shows when it is healthy"),
    ({"models": silent("no answer within 10 s")}, "no answer within 10 s; it hangs, or a firewall stands between"),
    ({"models": silent("No route to host")}, "No route to host; a firewall on the Docker host keeps containers apart"),
    ({"models": silent("Remote end closed connection without response")}, "docker ps shows whether it is well"),
    ({"models": answered('{"error": "Unauthorized"}', 401)}, f"GET {URL}/models answered 401 (Unauthorized); {KEY}"),
    ({"models": answered('{"error": {"message": "wrong key"}}', 403)}, f"answered 403 (wrong key); {KEY}"),
    ({"models": answered("<html>", 404)}, "answered 404 (<html>); something else answers under that name, or the base URL is another"),
    ({"models": answered("<html>")}, f"gives no list of models but <html>: {STOLEN}"),
    ({"models": answered('{"data": [{"id": "bge"}]}')}, f"lists bge and not {MODEL}: another service answers, or another model is up"),
    ({"models": answered('{"data": []}')}, f"lists nothing and not {MODEL}"),
    ({"rerank": silent("no answer within 30 s")}, f"POST {URL}/rerank: no answer within 30 s; it hangs"),
    ({"rerank": answered('{"error": {"message": "Not one document could be scored"}}', 503)},
     "answered 503 (Not one document could be scored); it is busy or not well: its /health says why; run make verify again"),
    ({"rerank": answered("", 500)}, "answered 500 (nothing); its log says why"),
    ({"rerank": answered('{"results": []}')}, f"gives no score for each document but {{\"results\": []}}: {STOLEN}"),
    ({"rerank": answered(ranked((1, 0.9)))}, "gives no score for each document"),
    ({"rerank": answered(ranked((0, 0.1), (1, 7.5)))}, "gives no score for each document"),
    ({"rerank": answered('[{"index": 0}]')}, "gives no score for each document"),
    ({"rerank": answered(ranked((0, 0.9), (1, 0.1)))},
     f"the document about Paris scored 0.100, the other 0.900: the wrong one comes first; docker logs {NAME} says why"),
    ({"rerank": answered(ranked((0, 0.5), (1, 0.5)))}, "the wrong one comes first"),
    ({"rerank": answered(RANKED, unhealthy="The golden pair scored 0.1")}, "the scores are not to be trusted: The golden pair scored 0.1"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "text"), FAULTS)
def test_each_fault_is_one_line_with_its_remedy(changes: dict[str, Any], text: str) -> None:
    [shown] = said(a_report(**changes), addresses=["172.18.0.2"])
    assert (shown.level, text in shown.text, "\n" in shown.text) == ("WRONG", True, False), shown.text


PROXY = {"proxy": ["http_proxy", "http://proxy:3128"], "no_proxy": "localhost,127.0.0.1"}


def test_a_proxy_in_the_way_is_wrong_with_the_no_proxy_to_set_though_past_it_all_is_right() -> None:
    [shown] = said(a_report(**PROXY), proxied=True)
    assert shown == Shown(
        "inside it",
        "WRONG",
        f"its http_proxy=http://proxy:3128 sends the call to a proxy, because its no_proxy does not name {NAME}; set both NO_PROXY and no_proxy to "
        f"localhost,127.0.0.1,{NAME} where the proxy is set (RAGFlow's docker/.env), start RAGFlow with docker compose up -d, then run make up again. "
        "Past the proxy it is right: the document about Paris scored 0.900, the other 0.100, in 0.21 s",
    )


def test_a_proxy_in_the_way_hides_no_other_fault() -> None:
    shown = said(a_report(**PROXY, rerank=answered("", 500)), proxied=True)
    assert [one.level for one in shown] == ["WRONG", "WRONG"]
    assert "answered 500" in shown[1].text
    assert "Past the proxy" not in shown[0].text


def test_the_proxy_of_this_machines_shell_is_no_fault_of_ragflows() -> None:
    assert [one.level for one in said(a_report(**PROXY))] == ["right"]


def test_lines_stand_under_each_other_with_the_level_in_front() -> None:
    shown = [Shown("inside a-long-name", "right", "one"), Shown("the Docker host", "WRONG", "two"), Shown("inside b", "note", "three")]
    assert verify.render(shown).splitlines() == [
        "  right  inside a-long-name  one",
        "  WRONG  the Docker host     two",
        "  note   inside b            three",
    ]
    assert verify.render([]) == ""


def test_a_long_text_goes_on_under_itself_and_keeps_its_words() -> None:
    url = f"http://{'long-' * 30}name:8000/v1"
    lines = verify.render([Shown("inside b", "WRONG", f"{'word ' * 40}{url} end")]).splitlines()
    assert [line[:19] for line in lines[1:]] == [" " * 19] * (len(lines) - 1)
    assert max(len(line) for line in lines if url not in line) <= verify.LINE
    assert " ".join(" ".join(lines).split()) == f"WRONG inside b {'word ' * 40}{url} end"
