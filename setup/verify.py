"""Whether RAGFlow can use the reranker: asked from inside each of its containers, and each fault in a sentence with its remedy."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from host import observe, ragflow
from registration.entry import KEY_PLACEHOLDER
from setup import daemon
from setup.edge import Edge, Refusal, Result

LOOK_LIMIT_S = 60
CALL_LIMIT_S = 120
PROBE = Path(__file__).with_name("probe.py")
LINE = 120  # characters of what is shown


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is verified: the outputs of a stack, and its settings as far as they say from where. `docker_host`: '' for this machine's."""

    url: str
    host_url: str
    model: str
    key: str = field(default="", repr=False)
    container: str = ""
    network: str = ""
    mode: str = "attach"
    named: Sequence[str] = ()
    attached: Sequence[str] = ()
    docker_host: str = ""
    local: bool = True

    @property
    def docker(self) -> list[str]:
        """The docker program with its --host."""
        return ["docker", *(["--host", self.docker_host] if self.docker_host else [])]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A container, and what else of it matters to a call: its state ('running', 'exited'), its environment, its addresses."""

    container: observe.Container
    state: str = "running"
    image_id: str = ""
    network_mode: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    addresses: Sequence[str] = ()

    @property
    def name(self) -> str:
        return self.container.name


@dataclass(frozen=True)
class Shown:
    """What one place showed: from where it was asked, how it came out, and the line that says so."""

    where: str
    level: Literal["right", "WRONG", "note"]
    text: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All that was shown; the speed that the reranker told (tokens a second, 0: it did not), and the document engine of each RAGFlow that was asked."""

    shown: Sequence[Shown]
    tokens_per_second: float = 0.0
    engines: Mapping[str, str] = field(default_factory=dict)

    @property
    def right(self) -> bool:
        return all(one.level != "WRONG" for one in self.shown)


def run(edge: Edge, target: Target) -> Outcome:
    """Asks from every RAGFlow container that runs, then from the host where that is this machine. Raises Refusal where Docker cannot be asked."""
    shown: list[Shown] = []
    reports: list[dict[str, Any]] = []
    asked: Sequence[Seen] = ()
    if target.container:
        seen = look(edge, target)
        shown, asked, own = choose(seen, target)
        for one in asked:
            # In the host's network no container's name is known: RAGFlow calls the published port there.
            at = target if target.network in one.container.networks else replace(target, url=target.host_url)
            answer = ask_inside(edge, at, one, own.image_id if own else "")
            where = f"inside {one.name}"
            if isinstance(answer, str):
                shown.append(Shown(where, "WRONG", answer))
                continue
            reports.append(answer)
            shown += judge(where, answer, at, addresses=own.addresses if own and at is target else (), proxied=True)
        if any(one.level == "WRONG" and one.where == target.container for one in shown):
            return Outcome(shown=shown)
    if target.host_url and target.local:
        here = replace(target, url=target.host_url)
        where = "the Docker host" if target.container else "this machine"
        # An external service may be reached by this machine's proxy alone; the published port of a container never is.
        answer = report_of(edge.run([edge.python, "-"], CALL_LIMIT_S, script(here, environment=None, direct=bool(target.container))))
        if isinstance(answer, str):
            shown.append(Shown(where, "WRONG", f"could not ask: {answer}"))
        else:
            reports.append(answer)
            shown += judge(where, answer, here)
    speed = next((float(one["tokens_per_second"]) for one in reports if one.get("tokens_per_second")), 0.0)
    return Outcome(shown=shown, tokens_per_second=speed, engines={one.name: one.environment.get("DOC_ENGINE", "") for one in asked})


def render(shown: Sequence[Shown]) -> str:
    """One entry under the other, a long text going on under itself."""
    width = max((len(one.where) for one in shown), default=0)
    entries = []
    for one in shown:
        head = f"  {one.level:<5}  {one.where:<{width}}  "
        room = max(LINE, len(head) + 40)
        entries += textwrap.wrap(
            one.text, room, initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False, break_on_hyphens=False
        )
    return "\n".join(entries)


# -- from where ---------------------------------------------------------------------------------------------------------


def look(edge: Edge, target: Target) -> list[Seen]:
    """Every container of the host, running or not. Raises Refusal."""
    listed = edge.run([*target.docker, "container", "ls", "--all", "--quiet", "--no-trunc"], LOOK_LIMIT_S)
    if listed.code:
        found = daemon.look(edge, target.docker_host)
        raise Refusal(f"Docker does not answer: {listed.tail()}; {daemon.remedy(edge, found) or 'run this again'}")
    ids = listed.out.split()
    if not ids:
        return []
    described = edge.run([*target.docker, "container", "inspect", *ids], LOOK_LIMIT_S)
    try:
        # what vanished meanwhile fails the command, and the others are described all the same
        return [read(item) for item in json.loads(described.out)]
    except (ValueError, KeyError, TypeError):
        raise Refusal(f"`docker container inspect` failed: {described.tail()}") from None


def read(item: dict[str, Any]) -> Seen:
    """A container as `docker container inspect` describes it."""
    ends = (item["NetworkSettings"].get("Networks") or {}).values()
    return Seen(
        container=observe.read_container(item),
        state=item["State"]["Status"],
        image_id=item["Image"],
        network_mode=(item.get("HostConfig") or {}).get("NetworkMode", ""),
        environment=dict(entry.partition("=")[::2] for entry in item["Config"].get("Env") or ()),
        addresses=tuple(address for end in ends for address in (end.get("IPAddress"), end.get("GlobalIPv6Address")) if address),
    )


def choose(seen: Sequence[Seen], target: Target) -> tuple[list[Shown], list[Seen], Seen | None]:
    """What shows without a call, the containers to ask from, and the reranker's own."""
    by_name = {one.name: one for one in seen}
    own = by_name.get(target.container)
    if wrong := _absent(own, target):
        return [Shown(target.container, "WRONG", wrong)], [], own
    shown: list[Shown] = []
    for name in sorted({*target.named, *target.attached} - by_name.keys()):
        shown.append(Shown(f"inside {name}", "WRONG", "there is no such container any more: start RAGFlow, then run make up again"))
    named = [name for name in target.named if name in by_name]
    found = ragflow.find([one.container for one in seen], named=named, own=target.container) if named or not target.named else []
    expected = {container.name for container in found} | {name for name in target.attached if name in by_name}
    asked = []
    for one in (by_name[name] for name in sorted(expected)):
        where, on_it = f"inside {one.name}", target.network in one.container.networks
        if one.state != "running":
            shown.append(Shown(where, "note", f"it is not running ({one.state}), so nothing was asked from there"))
        elif on_it or (target.mode == "none" and one.network_mode == "host" and target.host_url):
            asked.append(one)
        elif target.mode == "attach":
            shown.append(Shown(where, "WRONG", _apart(one, target)))
        else:
            shown.append(Shown(where, "note", f"it is not on the network {target.network}: ragflowMode {target.mode} leaves that to you"))
    if not expected and not shown and target.mode != "none":
        shown.append(Shown("RAGFlow", "note", "no container of it on this host: start it, then run make up again (ragflowContainers names others)"))
    return shown, asked, own


def _absent(own: Seen | None, target: Target) -> str:
    """Why the reranker's container cannot be reached by anybody; empty where it can."""
    if own is None:
        return "there is no such container: run make up again"
    if own.state != "running":
        return f"the reranker's container does not run ({own.state}): `docker logs {own.name}` says why, make up starts it again"
    if target.network not in own.container.networks:
        return f"the reranker's container is not on the network {target.network}: run make up again"
    return ""


def _apart(one: Seen, target: Target) -> str:
    if one.network_mode == "host":
        where = target.host_url or "the Docker host, with hostPort set"
        return f"it runs with network_mode: host, where the name is not known: set ragflowMode to none and give RAGFlow the base URL {where}"
    if one.network_mode.startswith("container:"):
        return "it uses another container's network: that one must be attached, name it in ragflowContainers"
    return f"it is not on the network {target.network}: it was made anew or cut off since the last up; run make up again"


# -- asking -------------------------------------------------------------------------------------------------------------


def ask_inside(edge: Edge, target: Target, one: Seen, image: str) -> dict[str, Any] | str:
    """The probe's report from inside a container, or why there is none. By its own python3, else by a one-off container of `image` in its network."""
    call = [*target.docker, "exec", "--interactive", one.container.id, "python3", "-"]
    inside = edge.run(call, CALL_LIMIT_S, script(target, environment=None, direct=True))
    answer = report_of(inside)
    if not isinstance(answer, str) or inside.code == 124 or not image:
        return answer if not isinstance(answer, str) else f"could not be asked: {answer}"
    beside = report_of(edge.run(beside_argv(target.docker, one, image), CALL_LIMIT_S, script(target, environment=_proxies(one), direct=True)))
    if isinstance(beside, str):
        return f"could not be asked: its python3: {answer}; a container of the reranker's image in its network: {beside}"
    return beside


def beside_argv(docker: Sequence[str], one: Seen, image: str) -> list[str]:
    """A one-off container of the reranker's image, confined, in the network of another: its resolver, its addresses, its /etc/hosts."""
    return [
        *docker, "run", "--rm", "--interactive", "--pull", "never", "--network", f"container:{one.container.id}", "--entrypoint", "python3",
        "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory", "256m", "--memory-swap", "256m", "--pids-limit", "64",
        "--log-driver", "none", image, "-",
    ]  # fmt: skip


def script(target: Target, *, environment: Mapping[str, str] | None, direct: bool) -> str:
    """The probe with its job, for the standard input of a python3."""
    job = {"url": target.url, "model": target.model, "key": target.key or KEY_PLACEHOLDER, "environment": environment, "direct": direct}
    return f"{PROBE.read_text(encoding='utf-8')}\n\nmain({json.dumps(job)!r})\n"


def report_of(answer: Result) -> dict[str, Any] | str:
    """The probe's report, or the last words of what could not run it."""
    try:
        found = json.loads(answer.out.strip().splitlines()[-1])
        if isinstance(found, dict) and "proxy" in found:
            return found
    except (ValueError, IndexError):
        pass
    return answer.tail()[:300]


def _proxies(one: Seen) -> dict[str, str]:
    return {name: value for name, value in one.environment.items() if name.lower().endswith("_proxy")}


# -- judging ------------------------------------------------------------------------------------------------------------


def judge(where: str, report: Mapping[str, Any], target: Target, *, addresses: Sequence[str] = (), proxied: bool = False) -> list[Shown]:
    """Lines about one report. `addresses`: the reranker's, where they are known; `proxied`: a proxy in the way counts as a fault."""
    wrong = _call_fault(report, target, addresses)
    said = wrong or _right(report)
    shown = []
    if proxied and report["proxy"]:
        shown.append(Shown(where, "WRONG", _proxy_fault(report, target) + ("" if wrong else f". Past the proxy it is right: {said}")))
    if wrong or not shown:
        shown.append(Shown(where, "WRONG" if wrong else "right", said))
    return shown


def _proxy_fault(report: Mapping[str, Any], target: Target) -> str:
    variable, address = report["proxy"]
    host = urlsplit(target.url).hostname
    wanted = ",".join([*filter(None, [report["no_proxy"]]), str(host)])
    return (
        f"its {variable}={address} sends the call to a proxy, because its no_proxy does not name {host}; set both NO_PROXY and no_proxy to {wanted} where "
        "the proxy is set (RAGFlow's docker/.env), start RAGFlow with docker compose up -d, then run make up again"
    )


def _call_fault(report: Mapping[str, Any], target: Target, addresses: Sequence[str]) -> str:
    """The first step of a call that failed, and what to do; empty where the answer is right."""
    host = urlsplit(target.url).hostname
    if "unresolved" in report:
        return (
            f"the name {host} does not resolve there ({report['unresolved']}), although both are on {target.network}: Docker's resolver 127.0.0.11 is not asked; "
            "look into its /etc/resolv.conf, and remove what mounts or rewrites that"
        )
    resolved = report.get("addresses", [])
    if addresses and resolved and not set(addresses) & set(resolved):
        return (
            f"the name {host} leads to {', '.join(resolved)} there and not to the reranker at {', '.join(addresses)}: another container on one of its networks "
            "has that name or alias, or its extra_hosts do; take that away, or set containerName"
        )
    return _models_fault(report["models"], target) or _rerank_fault(report["rerank"], target)


def _models_fault(answer: Mapping[str, Any], target: Target) -> str:
    what = f"GET {target.url}/models"
    if not answer["status"]:
        return f"{what}: {answer['failure']}; {_silence(answer['failure'])}"
    if answer["status"] != 200:
        return f"{what}{_refused(answer)}"
    try:
        names = [str(item["id"]) for item in json.loads(answer["text"])["data"]]
    except (ValueError, KeyError, TypeError):
        return f"{what} gives no list of models but {_short(answer['text'])}: something else answers under that name"
    if target.model not in names:
        return (
            f"{what} lists {', '.join(names) or 'nothing'} and not {target.model}: another service answers, or another model is up; run make up again"
        )
    return ""


def _rerank_fault(answer: Mapping[str, Any], target: Target) -> str:
    what = f"POST {target.url}/rerank"
    if not answer["status"]:
        return f"{what}: {answer['failure']}; {_silence(answer['failure'])}"
    if answer["status"] != 200:
        return f"{what}{_refused(answer)}"
    scores = _scores(answer)
    if scores is None:
        return f"{what} gives no score for each document but {_short(answer['text'])}: something else answers under that name"
    if answer.get("unhealthy"):
        return f"the scores are not to be trusted: {answer['unhealthy']}; docker logs {target.container} has more"
    if scores[1] <= scores[0]:
        return f"{_told(scores)}: the wrong one comes first; docker logs {target.container} says why"
    return ""


def _right(report: Mapping[str, Any]) -> str:
    return f"{_told(_scores(report['rerank']) or {})}, in {report['rerank']['seconds']:.2f} s"


def _told(scores: Mapping[int, float]) -> str:
    return f"the document about Paris scored {scores[1]:.3f}, the other {scores[0]:.3f}"


def _scores(answer: Mapping[str, Any]) -> dict[int, float] | None:
    """Score by place of the document (setup/probe.py has two), None where one is missing or is no number from 0 to 1."""
    try:
        scores = {int(item["index"]): float(item["relevance_score"]) for item in json.loads(answer["text"])["results"]}
    except (ValueError, KeyError, TypeError):
        return None
    return scores if scores.keys() == {0, 1} and all(0 <= score <= 1 for score in scores.values()) else None


def _silence(failure: str) -> str:
    if "refused" in failure.lower():
        return "the reranker is starting or stopping: docker ps shows when it is healthy"
    if "no answer within" in failure:
        return (
            "it hangs, or a firewall stands between; its /health and its log say which (RAGFlow itself waits 30 s, deadlineSeconds must stay below)"
        )
    if "no route" in failure.lower() or "unreachable" in failure.lower():
        return "a firewall on the Docker host keeps containers apart: allow traffic within the bridge network"
    return "docker ps shows whether it is well, its log says more"


def _refused(answer: Mapping[str, Any]) -> str:
    status = answer["status"]
    remedy = {
        401: "the stack's apiKey is another than the one the reranker was started with: run make up again",
        403: "the stack's apiKey is another than the one the reranker was started with: run make up again",
        404: "something else answers under that name, or the base URL is another: make up prints the right one",
        503: "it is busy or not well: its /health says why; run make verify again",
    }.get(status, "its log says why")
    return f" answered {status} ({_short(answer['text'])}); {remedy}"


def _short(text: str) -> str:
    """The message of an error in vLLM's shape, else the beginning of the text."""
    try:
        error = json.loads(text)["error"]
        text = error["message"] if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, TypeError):
        pass
    return " ".join(text.split())[:200] or "nothing"
