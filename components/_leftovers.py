"""What an up that was killed made on the host and could not write into the state: it stands in the way of the next one."""

import json
from collections.abc import Callable, Mapping

import pulumi

from host.docker import Docker, DockerError

TIMEOUT_SECONDS = 120


def cleared(
    name: str, *, kind: str, called: str, ours: Callable[[Mapping[str, str]], bool], environment: Mapping[str, str]
) -> pulumi.ResourceHookBinding:
    """Hooks that remove the `kind` (container | network) `called` so just before the engine creates it, where its labels are `ours`, and fail where they are not.

    At that moment the state knows of none, so whatever has the name is such a leftover. A volume stays where it is ours: Docker gives the same one again.
    `environment` reaches the stack's Docker host.
    """

    def clear(_: pulumi.ResourceHookArgs) -> None:
        """Without this the daemon refuses the name, in this up and every one after it; or hands out a volume that somebody else has made meanwhile."""
        listed = ["--quiet", *(["--all"] if kind == "container" else []), "--filter", f"name=^/?{called.replace('.', chr(92) + '.')}$"]
        found = _docker(environment, kind, "ls", *listed).split()
        for item in json.loads(_docker(environment, kind, "inspect", *found, partial=True)) if found else []:
            labels = (item["Config"] if kind == "container" else item)["Labels"] or {}
            if not ours(labels):
                raise RuntimeError(
                    f"{kind} {called!r} was made meanwhile, and not by this deployment: nothing of it was touched; pulumi preview says whose it is"
                )
            if kind != "volume":
                _docker(environment, kind, "rm", *(["--force"] if kind == "container" else []), item["Id"])

    return pulumi.ResourceHookBinding(before_create=[pulumi.ResourceHook(f"{name}-cleared", clear)])


def _docker(environment: Mapping[str, str], *argv: str, partial: bool = False) -> str:
    try:
        return Docker(environment, timeout=TIMEOUT_SECONDS)(*argv, partial=partial)
    except DockerError as error:
        what = f"what an interrupted up left could not be removed: docker {' '.join(argv)}: {error}"
        raise RuntimeError(f"{what}; remove it by hand and run pulumi up again") from error
