"""The verbs behind `make`: what is done, and in which order."""

import json
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host import registered
from host.causes import SAID_FILE
from host.docker import environment
from host.ragflow import NotFound
from registration import handed
from setup import daemon, fit, preflight, pulumi, stack, tiers, venv, verify
from setup.daemon import Daemon
from setup.edge import Edge, Refusal, consent

TESTS_LIMIT_S = 3 * 3600
DEMO_LIMIT_S = 3600
LINT_LIMIT_S = 600
BENCH_LIMIT_S = 6 * 3600
KEPT = """What stays on disk:
  the model volume, unless modelKeep is false; shown by docker volume ls --filter label=io.ragflow-reranker.owner
  Docker's images and build cache; freed by docker image prune --all, docker builder prune
  state/, .venv, the passphrase and ~/.pulumi"""


@dataclass(frozen=True)
class Ready:
    """A stack that Pulumi's commands can run on."""

    program: str
    stack: str

    def command(self, verb: str, *flags: str) -> list[str]:
        return [self.program, verb, "--stack", self.stack, *flags]


def setup(edge: Edge) -> int:
    """make setup: all that plain pulumi needs, and what the host has."""
    ready, _ = _prepare(edge, may_install=False)
    edge.say("\nReady. Plain pulumi works too:\n" + "\n".join(f"  {line}" for line in [*edge.exports, f"pulumi up --stack {ready.stack}"]))
    return 0


def preview(edge: Edge) -> int:
    """make preview: what `make up` would change."""
    ready, healthy = _prepare(edge, may_install=False)
    return _pulumi(edge, ready, "preview") if healthy else 1


def up(edge: Edge) -> int:
    """make up: preview, ask, apply, say what to do in RAGFlow, and verify it from inside."""
    _need_somebody(edge, "make up", "make preview")
    ready, healthy = _prepare(edge, may_install=True)
    if not healthy:
        return 1
    code = _pulumi(edge, ready, "preview")
    if code:
        return code
    if not consent(edge, f"Apply this to the stack {ready.stack}?"):
        edge.say("Nothing was changed.")
        return 1
    code = _pulumi(edge, ready, "up", "--yes", "--skip-preview")
    if code:
        return code
    found = stack.outputs(edge, ready.program, ready.stack)
    edge.say("\n" + stack.render(found))
    again = f"make verify{'' if ready.stack == stack.DEFAULT else f' STACK={ready.stack}'}"
    try:
        right = _verify(edge, ready, found)
    except Refusal as reason:
        edge.say(f"Not verified: {reason}")
        right = False
    # 0 all the same: what was asked for stands, and a script that took a 1 for a failed up would repeat it or take it away. `make verify` has the 1.
    edge.say(
        f"\nCheck it any time with: {again}"
        if right
        else f"\nThe stack is up, and not all of it is right: see WRONG above. Check again with: {again}"
    )
    return 0


def down(edge: Edge) -> int:
    """make down: preview, ask, destroy, and say what stays."""
    _need_somebody(edge, "make down", "pulumi destroy --preview-only")
    # What a host cannot run can still be removed from it.
    ready, healthy = _prepare(edge, may_install=False, judge=False)
    if not healthy:
        return 1
    code = _pulumi(edge, ready, "destroy", "--preview-only")
    if code:
        return code
    if not consent(edge, f"Destroy this in the stack {ready.stack}?"):
        edge.say("Nothing was changed.")
        return 1
    code = _pulumi(edge, ready, "destroy", "--yes", "--skip-preview")
    if not code:
        edge.say("\n" + KEPT)
    return code


def check(edge: Edge) -> int:
    """make verify: a rerank from inside each RAGFlow container and from the host, whether it came out right, and what of RAGFlow's calls fits."""
    name = stack.chosen(edge)
    program = pulumi.ensure(edge, venv.ensure(edge, venv.RUNTIME_LOCK))
    stack.ensure_passphrase(edge, name)
    stack.select(edge, program, name)
    found = stack.outputs(edge, program, name)
    if not found.get("internalUrl"):
        raise Refusal(f"the stack {name} has nothing to verify: it is not up; run make up first")
    return 0 if _verify(edge, Ready(program, name), found) else 1


def test(edge: Edge) -> int:
    """make test: the picked tiers in one run of pytest; what cannot be had for a tier is said, and its tests skip themselves."""
    picked = [name.strip() for name in (edge.env.get("TIERS") or ",".join(tiers.TIERS)).split(",") if name.strip()]
    unknown = [name for name in picked if name not in tiers.TIERS]
    if unknown or not picked:
        raise Refusal(f"TIERS={edge.env['TIERS']}: choose from {','.join(tiers.TIERS)}")
    folders = [f"tests/{name}" for name in picked if (edge.root / "tests" / name).is_dir()]
    if not folders:
        raise Refusal(f"TIERS={','.join(picked)}: there is no folder of these under tests/")
    python = venv.ensure(edge, venv.DEV_LOCK)
    if set(picked) - {"unit", "browser", "ragflow"}:
        try:
            _adopt(edge, daemon.ensure(edge))
        except Refusal as reason:
            edge.say(f"warning: {reason}")
    if "engine" in picked:
        try:
            pulumi.ensure(edge, python)
        except Refusal as reason:
            edge.say(f"warning: {reason}")
    return edge.show([str(python), "-m", "pytest", *folders], TESTS_LIMIT_S)


def demo(edge: Edge) -> int:
    """make demo: the mock backend beside a RAGFlow stand-in on the local daemon, without engine and model."""
    return _demo(edge, "up")


def demo_down(edge: Edge) -> int:
    """make demo-down: removes what make demo made."""
    return _demo(edge, "down")


def lint(edge: Edge) -> int:
    """make lint: ruff's format and rules, and mypy, as pyproject.toml has them."""
    python = str(venv.ensure(edge, venv.DEV_LOCK))
    tools = (("ruff", "format", "--check", "."), ("ruff", "check", "."), ("mypy",))
    codes = [edge.show([python, "-m", *tool], LINT_LIMIT_S) for tool in tools]
    return next(filter(None, codes), 0)


def bench(edge: Edge) -> int:
    """make bench: the serving layer's numbers, into bench/figures; BENCH="speed --rounds 3" measures a part, BENCH=--help says which there are."""
    python = venv.ensure(edge, venv.DEV_LOCK)
    _adopt(edge, daemon.ensure(edge))
    return edge.show([str(python), "-m", "bench.serving", *shlex.split(edge.env.get("BENCH", ""))], BENCH_LIMIT_S)


def docker_stop(edge: Edge) -> int:
    """make docker-stop: ends the dockerd that setup started."""
    daemon.stop(edge)
    return 0


VERBS: dict[str, Callable[[Edge], int]] = {
    "up": up,
    "preview": preview,
    "down": down,
    "setup": setup,
    "verify": check,
    "test": test,
    "demo": demo,
    "demo-down": demo_down,
    "lint": lint,
    "bench": bench,
    "docker-stop": docker_stop,
}


def main(argv: Sequence[str], edge: Edge) -> int:
    """Runs one verb; returns its exit code: pulumi's or pytest's own, 1 for a refusal, 2 for no such verb."""
    if len(argv) != 1 or argv[0] not in VERBS:
        lines = [verb.__doc__.splitlines()[0] for verb in VERBS.values() if verb.__doc__]
        usage = f"usage: make [VERB] [STACK=laptop] [YES=1] [TAKE_OVER=deployment] [TIERS={','.join(tiers.TIERS)}] [BENCH=speed]\n  " + "\n  ".join(
            lines
        )
        (edge.complain if argv else edge.say)(usage)
        return 2 if argv else 0
    try:
        return VERBS[argv[0]](edge)
    except Refusal as reason:
        edge.complain(f"error: {reason}")
        return 1
    except KeyboardInterrupt:
        return 130


def _pulumi(edge: Edge, ready: Ready, verb: str, *flags: str) -> int:
    """One of pulumi's verbs on the terminal. Where it fails, our own words of the cause come last: the program's (components/image.py), or what pulumi's mean."""
    with tempfile.TemporaryDirectory(prefix="reranker-said-") as folder:
        said = Path(folder) / "said"
        edge.env[SAID_FILE] = str(said)
        try:
            code = edge.show(ready.command(verb, *flags), stack.WORK_LIMIT_S)
        finally:
            del edge.env[SAID_FILE]
        if code:
            why = said.read_text(encoding="utf-8").strip() if said.exists() else stack.explained(edge, ready.program, ready.stack)
            if why:
                edge.complain(f"error: {why}")
    return code


def _prepare(edge: Edge, *, may_install: bool, judge: bool = True) -> tuple[Ready, bool]:
    """The stack with everything under it, and whether the host can carry it; without `judge`, whether its daemon answers."""
    name = stack.chosen(edge)
    python = venv.ensure(edge, venv.RUNTIME_LOCK)
    program = pulumi.ensure(edge, python)
    stack.ensure_passphrase(edge, name)
    stack.select(edge, program, name)
    ready = Ready(program, name)
    if stack.setting(edge, program, name, "backend") == "external":
        return ready, True  # nothing is deployed, so no Docker is needed
    host = stack.setting(edge, program, name, "dockerHost")
    found = daemon.ensure(edge, host) if may_install else daemon.look(edge, host)
    table = preflight.rows(edge, found)
    edge.say(f"The host of {name}:\n{preflight.render(table)}")
    return ready, all(row.level != "fail" for row in table) if judge else found.state == "ready"


def _verify(edge: Edge, ready: Ready, found: Mapping[str, Any]) -> bool:
    """Asks, shows what came out and what fits, and returns whether all of it was right."""

    def setting(key: str) -> str:
        return stack.setting(edge, ready.program, ready.stack, key)

    host = setting("dockerHost")
    target = verify.Target(
        url=str(found["internalUrl"]),
        host_url=str(found.get("hostUrl", "")),
        model=str(found.get("modelName", "")),
        key=stack.secret(edge, ready.program, ready.stack, "apiKey"),
        container=str(found.get("containerName", "")),
        network=str(found.get("networkName", "")),
        mode=setting("ragflowMode"),
        named=json.loads(setting("ragflowContainers") or "[]"),
        attached=found.get("attachedContainers", []),
        docker_host=host,
        local=not found.get("containerName")
        or Daemon("ready", daemon.address(edge, host)).local,  # else the published port is on that host's loopback
    )
    outcome = verify.run(edge, target)
    shown = [*outcome.shown, *_registration(edge, ready, found, target, setting, list(outcome.engines))]
    edge.say("\nA rerank, asked for from each place:\n" + (verify.render(shown) or "  there is no place to ask from"))
    # The mock's speed is no model's.
    if outcome.right and outcome.tokens_per_second and setting("backend") != "mock":
        dials = {key: int(setting(key)) for key in ("deadlineSeconds", "minDocumentTokens")}
        lines = fit.lines(outcome.tokens_per_second, deadline=dials["deadlineSeconds"], least=dials["minDocumentTokens"], engines=outcome.engines)
        edge.say("\n" + "\n".join(lines))
    return all(one.level != "WRONG" for one in shown)


def _registration(
    edge: Edge, ready: Ready, found: Mapping[str, Any], target: verify.Target, setting: Callable[[str], str], ragflows: Sequence[str]
) -> list[verify.Shown]:
    """RAGFlow's own word on the entry that the stack made there: what it holds, and its own trial of it. `ragflows`: its containers that run."""
    where, form = "RAGFlow's own list", found.get("ragflow")
    if not isinstance(form, dict) or not form.get("modelId"):
        return []
    try:
        place = registered.place(setting("ragflowUrl"), stack.secret(edge, ready.program, ready.stack, "ragflowApiKey"), ragflows)
    except NotFound as reason:
        return [verify.Shown(where, "WRONG", str(reason))]
    told = environment(target.docker_host) | handed.environment(
        url=place.url,
        container=place.container,
        instance=target.container,
        model=target.model,
        base_url=form.get("baseUrl", target.url),
        max_tokens=form.get("maxTokens", ""),
        default=setting("ragflowDefault"),
    )
    argv = ["env", *(f"{name}={value}" for name, value in told.items()), edge.python, "-m", "registration", "check"]
    answer = edge.run(argv, verify.CALL_LIMIT_S, handed.keys(place.key, target.key))
    if answer.code:
        return [verify.Shown(where, "WRONG", answer.tail())]
    return [verify.Shown(where, "right", f"it holds and reaches the reranker: {answer.out.strip()}")]


def _adopt(edge: Edge, found: Daemon) -> None:
    # the docker package reads no contexts of the docker program, so it is told
    if found.host:
        edge.env["DOCKER_HOST"] = found.host
    if found.certificates:
        edge.env |= {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": found.certificates}


def _demo(edge: Edge, verb: str) -> int:
    python = venv.ensure(edge, venv.DEV_LOCK)
    _adopt(edge, daemon.ensure(edge))
    return edge.show([str(python), "-m", "tests.support.demo", verb], DEMO_LIMIT_S)


def _need_somebody(edge: Edge, verb: str, harmless: str) -> None:
    if not edge.flag("YES") and not edge.terminal():
        raise Refusal(f"{verb} asks before it changes anything, and there is no terminal to ask on: add YES=1, or only look with {harmless}")
