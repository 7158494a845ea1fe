"""What an up that was killed made on the host and could not write into the state: it stands in the way of the next one."""

from collections.abc import Mapping

import pulumi

from host import labels
from host.docker import Docker, DockerError

TIMEOUT_SECONDS = 120


def cleared(name: str, *, kind: str, called: str, owner: str, environment: Mapping[str, str]) -> pulumi.ResourceHookBinding:
    """Hooks that remove the `kind` (container | network) `called` so, where it carries the owner's label, just before the engine creates it.

    At that moment the state knows of none, so whatever has the name is such a leftover. `environment` reaches the stack's Docker host.
    """

    def clear(_: pulumi.ResourceHookArgs) -> None:
        """Without this the daemon refuses the name, in this up and every one after it."""
        name = called.replace(".", r"\.")
        filters = ["--filter", f"label={labels.OWNER}={owner}", "--filter", f"name=^/?{name}$"]
        found = _docker(environment, kind, "ls", "--quiet", *(["--all"] if kind == "container" else []), *filters).split()
        if found:
            _docker(environment, kind, "rm", *(["--force"] if kind == "container" else []), *found)

    return pulumi.ResourceHookBinding(before_create=[pulumi.ResourceHook(f"{name}-cleared", clear)])


def _docker(environment: Mapping[str, str], *argv: str) -> str:
    try:
        return Docker(environment, timeout=TIMEOUT_SECONDS)(*argv)
    except DockerError as error:
        what = f"what an interrupted up left could not be removed: docker {' '.join(argv)}: {error}"
        raise RuntimeError(f"{what}; remove it by hand and run pulumi up again") from error
