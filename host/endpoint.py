"""Where the docker program finds its daemon, as the Pulumi provider must be told it: address and TLS material of a context. Python's standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MATERIAL = ("ca.pem", "cert.pem", "key.pem")


class Unreached(Exception):
    """The docker program reaches a daemon that the provider cannot; the message has the remedy."""


@dataclass(frozen=True)
class Endpoint:
    """A daemon's address, and the folder with ca.pem, cert.pem and key.pem that its TLS wants ('' without TLS)."""

    host: str
    certificates: str = ""

    @property
    def local(self) -> bool:
        """Whether the address is a socket of this machine."""
        return self.host == "" or self.host.startswith("unix://")


def endpoint_of(context: Mapping[str, Any], env: Mapping[str, str]) -> Endpoint:
    """The endpoint of what `docker context inspect` gives under `env`: the context of DOCKER_HOST, of DOCKER_CONTEXT, or the one in use. Raises Unreached."""
    end = (context.get("Endpoints") or {}).get("docker") or {}
    host, name = str(end.get("Host") or ""), str(context.get("Name") or "default")
    whose = f"the Docker context {name!r} ({host})"
    if host.split("://", 1)[0] not in ("unix", "tcp", "ssh", "http", "https"):
        raise Unreached(
            f"{whose} has an address that Pulumi's Docker provider cannot use; set dockerHost to the daemon's address: unix://, tcp:// or ssh://"
        )
    material = (context.get("TLSMaterial") or {}).get("docker") or []
    if not host.startswith(("tcp://", "https://")) or not (material or end.get("SkipTLSVerify")):
        return Endpoint(host)
    if end.get("SkipTLSVerify"):
        raise Unreached(
            f"{whose} does not verify the daemon's certificate, and Pulumi's Docker provider always does; give the daemon a certificate for that address and "
            f"set it: docker context update {name} --docker host={host},ca=...,cert=...,key=..., or use ssh:// in dockerHost"
        )
    if missing := [file for file in MATERIAL if file not in material]:
        raise Unreached(
            f"{whose} has TLS without {' and '.join(missing)}, and Pulumi's Docker provider needs {', '.join(MATERIAL)}; add the missing ones "
            "(docker context update, or DOCKER_CERT_PATH's folder), or use ssh:// in dockerHost"
        )
    stored = str((context.get("Storage") or {}).get("TLSPath") or "")
    if name != "default" and stored.startswith("/"):
        return Endpoint(host, str(Path(stored, "docker")))
    own = env.get("DOCKER_CONFIG") or str(Path(env.get("HOME", "~")).expanduser() / ".docker")
    return Endpoint(host, str(Path(env.get("DOCKER_CERT_PATH") or own).absolute()))


def remedy(host: str, why: str) -> str:
    """What to do where the docker program got no answer from `host` ('': the one that it is set to) but the error `why`."""
    if known := remedy_of(why):
        return known
    if host.startswith("ssh:"):
        return "check that 'ssh' reaches it without a question and that its user may use Docker"
    if "permission denied" in why.lower():
        return "add your user to the group docker and log in again"
    return "start it (systemctl start docker), or set dockerHost"


def remedy_of(why: str) -> str:
    """What to do about an error of the docker program's own setting: its context, its certificates, its version; '' where it is another."""
    said = why.lower()
    if "context" in said and "not found" in said:
        return "'docker context ls' shows the contexts that there are: choose one with 'docker context use', unset DOCKER_CONTEXT, or set dockerHost"
    if any(word in said for word in ("x509", "certificate", ".pem", "tls:", "http request to an https server", "http response to https client")):
        return (
            "its certificates do not fit: for TLS set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH to a folder with ca.pem, cert.pem and key.pem, for none unset both; "
            "or use a Docker context that has them"
        )
    if "api version" in said and ("too old" in said or "too new" in said):
        return "docker program and daemon are too far apart: upgrade the older one, and unset DOCKER_API_VERSION"
    return ""
