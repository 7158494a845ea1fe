"""What `pulumi up` needs on this machine: the checkout's environment, the Pulumi program with its language host and plugins, the passphrase."""

import stat
from collections.abc import Mapping
from pathlib import Path

from host.rows import Row
from rerank.doctor.stacks import Stack
from setup import pulumi, venv
from setup.edge import Edge


def venv_row(root: Path) -> Row:
    """.venv of the checkout, as `make` notes what it holds."""
    if not (root / ".venv/bin/python").exists():
        return Row(".venv", "fail", f"there is none in {root}", "make setup")
    if not venv.current(root):
        return Row(
            ".venv", "warn", f"whether it holds what {venv.RUNTIME_LOCK} pins is not noted there", "make setup makes it anew where it does not"
        )
    return Row(".venv", "ok", f"as {venv.RUNTIME_LOCK} pins it")


def program_rows(edge: Edge) -> list[Row]:
    """The Pulumi program, its language host and its resource plugins, of the versions that are wanted."""
    home = Path(edge.env.get("PULUMI_HOME") or edge.home / ".pulumi")
    places = dict.fromkeys(
        [edge.which("pulumi") or "", *(str(path) for path in (home / "bin/pulumi", *sorted(home.glob("versions/*/bin/pulumi"), reverse=True)))]
    )
    found = [place for place in places if place and Path(place).exists()]
    if not found:
        return [
            Row(
                "pulumi",
                "fail",
                "there is no Pulumi program on PATH, nor in ~/.pulumi",
                "make setup installs it (README.md, Troubleshooting, says how without a network)",
            )
        ]
    faults = {place: pulumi.fault(edge, place) for place in found}
    program = next((place for place, fault in faults.items() if not fault), "")
    if not program:
        place, fault = next(iter(faults.items()))
        return [
            Row("pulumi", "fail", f"{place}: {fault}", "make setup installs one that serves, or upgrade it: https://www.pulumi.com/docs/install/")
        ]
    version = edge.run([program, "version"], pulumi.ASK_LIMIT_S).out.strip()
    lacking = [f"{name} {wanted}" for name, wanted in pulumi.missing_plugins(edge, program)]
    plugins = (
        Row("plugins", "fail", f"Pulumi has no plugin {' and no '.join(lacking)}", "make setup installs them; PULUMI_PLUGIN_SERVER names a mirror")
        if lacking
        else Row("plugins", "ok", f"{' and '.join(pulumi.PLUGINS)}, as {venv.RUNTIME_LOCK} has them")
    )
    return [Row("pulumi", "ok", f"{version} with its Python host: {program}"), plugins]


def passphrase_row(edge: Edge, stack: Stack, environment: Mapping[str, str]) -> Row:
    """Where the passphrase of the stack's secrets comes from. It is not read, and opens nothing here."""
    back = "put your copy back; where there is none: docs/configuration.md, A lost passphrase"
    if "PULUMI_CONFIG_PASSPHRASE" in environment:
        return Row("passphrase", "ok", "PULUMI_CONFIG_PASSPHRASE has it")
    told = environment.get("PULUMI_CONFIG_PASSPHRASE_FILE", "")
    path = edge.root / told if told else Path(environment.get("XDG_CONFIG_HOME") or edge.home / ".config") / "ragflow-reranker" / "passphrase"
    if not path.exists() and not told and not stack.salted:
        return Row("passphrase", "ok", "none yet, and nothing is sealed with one: make makes it")
    try:
        path.open("rb").close()
        open_to_others = path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    except OSError as error:
        return Row("passphrase", "fail", f"{path} cannot be read ({error.strerror})", back)
    if open_to_others:
        return Row("passphrase", "warn", f"others can read {path}", f"chmod 600 {path}")
    return Row("passphrase", "ok", str(path))
