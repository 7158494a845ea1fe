"""host/endpoint.py: the daemon of a Docker context as the provider is told it, or the sentence why it cannot be."""

from typing import Any

import pytest

from host.endpoint import Endpoint, Unreached, endpoint_of, remedy

ALL = ["ca.pem", "cert.pem", "key.pem"]


def context(
    host: str, *, name: str = "default", material: list[str] | None = None, skip: bool = False, stored: str = "<IN MEMORY>"
) -> dict[str, Any]:
    """As `docker context inspect` describes it."""
    return {
        "Name": name,
        "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": skip}},
        "TLSMaterial": {"docker": material} if material else {},
        "Storage": {"MetadataPath": "", "TLSPath": stored},
    }


REACHED: list[tuple[dict[str, Any], dict[str, str], Endpoint]] = [
    (context("unix:///var/run/docker.sock"), {}, Endpoint("unix:///var/run/docker.sock")),
    (context("unix:///run/user/1000/docker.sock", name="rootless"), {}, Endpoint("unix:///run/user/1000/docker.sock")),
    (context("unix:///home/me/.docker/run/docker.sock", name="desktop-linux", material=ALL), {}, Endpoint("unix:///home/me/.docker/run/docker.sock")),
    (context("ssh://me@nas", name="nas"), {}, Endpoint("ssh://me@nas")),
    (context("tcp://nas:2375"), {}, Endpoint("tcp://nas:2375")),
    (context("tcp://nas:2376", name="nas", material=ALL, stored="/home/me/.docker/contexts/tls/ab"), {}, Endpoint("tcp://nas:2376", "/home/me/.docker/contexts/tls/ab/docker")),
    (context("tcp://nas:2376", material=ALL), {"DOCKER_CERT_PATH": "/certs", "DOCKER_CONFIG": "/other"}, Endpoint("tcp://nas:2376", "/certs")),
    (context("tcp://nas:2376", material=ALL), {"DOCKER_CONFIG": "/other"}, Endpoint("tcp://nas:2376", "/other")),
    (context("tcp://nas:2376", material=ALL), {"HOME": "/home/me"}, Endpoint("tcp://nas:2376", "/home/me/.docker")),
]  # fmt: skip


@pytest.mark.parametrize(("given", "env", "endpoint"), REACHED)
def test_a_context_reaches_the_provider_with_its_address_and_its_certificates(given: dict[str, Any], env: dict[str, str], endpoint: Endpoint) -> None:
    assert endpoint_of(given, env) == endpoint


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            context("tcp://nas:2376", name="nas", material=ALL, skip=True),
            "the Docker context 'nas' (tcp://nas:2376) does not verify the daemon's certificate",
        ),
        (context("tcp://nas:2376", name="nas", material=["ca.pem"]), "has TLS without cert.pem and key.pem"),
        (context("npipe:////./pipe/docker_engine"), "the Docker context 'default' (npipe:////./pipe/docker_engine) has an address that Pulumi's"),
    ],
)
def test_what_the_provider_cannot_do_is_refused_by_the_contexts_name(given: dict[str, Any], words: str) -> None:
    with pytest.raises(Unreached) as refused:
        endpoint_of(given, {})
    assert words in str(refused.value)
    assert "dockerHost" in str(refused.value)


@pytest.mark.parametrize(
    ("host", "why", "words"),
    [
        ("", 'unable to resolve docker endpoint: context "nope": context not found: open /meta.json', "docker context ls"),
        ("tcp://nas:2376", "tls: failed to verify certificate: x509: certificate signed by unknown authority", "DOCKER_CERT_PATH"),
        ("tcp://nas:2376", "Client sent an HTTP request to an HTTPS server.", "DOCKER_TLS_VERIFY=1"),
        ("", "open /root/.docker/ca.pem: no such file or directory", "DOCKER_CERT_PATH"),
        ("tcp://nas:2375", "client version 1.24 is too old. Minimum supported API version is 1.44", "upgrade the older one"),
        ("ssh://nas", "Permission denied (publickey)", "'ssh' reaches it"),
        ("", "permission denied while trying to connect", "group docker"),
        ("", "Cannot connect to the Docker daemon", "systemctl start docker"),
    ],
)
def test_a_daemon_that_does_not_answer_comes_with_the_remedy_of_its_reason(host: str, why: str, words: str) -> None:
    assert words in remedy(host, why)
