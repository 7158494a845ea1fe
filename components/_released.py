"""How a network or volume goes: by what its labels say at that moment, and only once nothing needs it. The provider would remove whatever has the name, or retry for half a minute and fail."""

from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
import pulumi_command as command

from host import labels


def network(
    name: str,
    *,
    called: str,
    id: pulumi.Input[str],
    owner: str,
    environment: Mapping[str, str],
    parent: pulumi.Resource,
    needs: Sequence[pulumi.Resource],
) -> command.local.Command:
    """Removes the network when it is deleted, if `owner` made it; leaves it, with a sentence, to whoever is on it. Made before what goes on the network."""
    return _released(name, NETWORK, {"ID": id, "NAME": called, "OWNER": owner, **environment}, [id], parent, needs)


def volume(
    name: str,
    *,
    called: str,
    marks: Mapping[str, str],
    keep: bool = False,
    environment: Mapping[str, str],
    parent: pulumi.Resource,
    needs: pulumi.Resource,
) -> command.local.Command:
    """Removes the volume when it is deleted, if it still carries these marks, nothing uses it and it is not to be kept. Made before what mounts the volume."""
    marked = {"OWNER": marks[labels.OWNER], "GENERATION": marks[labels.GENERATION], "KEEP": "yes" if keep else "no"}
    return _released(name, VOLUME, {"NAME": called, **marked, **environment}, [called, marks[labels.GENERATION]], parent, [needs])


def _released(
    name: str, script: str, environment: Mapping[str, Any], triggers: list[Any], parent: pulumi.Resource, needs: Sequence[pulumi.Resource]
) -> command.local.Command:
    return command.local.Command(
        name,
        create=":",
        delete=script,
        environment=environment,
        triggers=triggers,
        opts=pulumi.ResourceOptions(parent=parent, depends_on=[*needs]),
    )


NETWORK = f"""
set -e
there=$(docker network ls --quiet --filter "id=$ID")
[ -n "$there" ] || exit 0
owner=$(docker network inspect --format '{{{{index .Labels "{labels.OWNER}"}}}}' "$ID" 2>/dev/null || :)
[ -n "$owner" ] || exit 0
names=$(docker ps --all --filter "network=$ID" --format '{{{{.Names}}}}')
names=$(echo $names)
if [ -n "$names" ]; then
  echo "network $NAME is left to what is on it: $names. When nothing needs it any more: docker network rm $NAME"
elif [ "$owner" != "$OWNER" ]; then
  echo "network $NAME is left: $owner made it, and nothing is on it now. If that deployment is gone: docker network rm $NAME"
else
  docker network rm "$ID" >/dev/null
fi
""".strip()

VOLUME = f"""
set -e
[ "$KEEP" = no ] || exit 0
all=$(docker volume ls --quiet)
printf '%s\\n' "$all" | grep -qxF "$NAME" || exit 0
marks=$(docker volume inspect --format '{{{{index .Labels "{labels.OWNER}"}}}} {{{{index .Labels "{labels.GENERATION}"}}}}' "$NAME" 2>/dev/null || :)
names=$(docker ps --all --filter "volume=$NAME" --format '{{{{.Names}}}}')
names=$(echo $names)
if [ "$marks" != "$OWNER $GENERATION" ]; then
  echo "volume $NAME is left: it is not the one that this deployment made"
elif [ -n "$names" ]; then
  echo "volume $NAME is left to what uses it: $names. When nothing needs it any more: docker volume rm $NAME"
else
  docker volume rm "$NAME" >/dev/null
fi
""".strip()
