"""What the network gives: mirrors, package index, registries, proxies, certificates, clocks. Pure: the probe's answers in, rows out."""

import ipaddress
import re
import ssl
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from config.settings import Settings
from host.facts import CLOCK_SECONDS, Facts, span
from host.registry import Answer, split
from host.rows import Level, Row
from serving.populate.files import ABSENT, GATED, REVISION

WRONG_CLOCK_SECONDS = 86400  # beyond it certificates do not verify and tokens are refused
INDEX = "https://pypi.org/simple"
GO = re.compile(r'^\w+ "\S+": ')  # what Docker's errors begin with: the question
PROXIES = {"httpProxy": ("HTTP_PROXY", "http_proxy"), "httpsProxy": ("HTTPS_PROXY", "https_proxy")}


def told(s: Settings) -> dict[str, str]:
    """The proxy variables that the image build and the download get: the stack's keys, and none of this machine's."""
    pairs = {"HTTP_PROXY": s.http_proxy, "HTTPS_PROXY": s.https_proxy, "NO_PROXY": s.no_proxy}
    return {spelled: value for name, value in pairs.items() if value for spelled in (name, name.lower())}


def has_model(s: Settings) -> bool:
    return s.backend in ("cpu", "gpu")


def sources(s: Settings) -> list[dict[str, Any]]:
    """What the probe is asked of the model's mirrors; none where the model comes from a file."""
    if not has_model(s) or s.model_source not in ("hub", "modelscope"):
        return []
    mirrors = s.model_mirrors if s.model_source == "hub" else (s.modelscope_endpoint,)
    named = {"source": s.model_source, "repo": s.model, "revision": s.model_revision}
    return [{"what": "mirror", "endpoint": mirror.rstrip("/"), **named} for mirror in mirrors]


def indexes(s: Settings) -> dict[str, str]:
    """The pages of the package indexes that the image build asks, and what becomes of it where one does not answer ('' where nothing does)."""
    if s.backend != "cpu" or s.image_strategy != "wheel":
        return {}
    without = "torch then comes from the package index, with 3.4 GB for GPUs"
    return {
        **{f"{index.rstrip('/')}/{s.vllm_package}/": "" for index in (s.package_index or INDEX, *filter(None, [s.extra_index]))},
        **{f"{index.rstrip('/')}/torch/": without for index in s.torch_indexes},
    }


def base(s: Settings) -> str:
    """The image that the daemon pulls, '' where it pulls none."""
    if s.backend == "gpu":
        return s.gpu_image
    if s.backend == "mock" or (s.backend == "cpu" and s.image_strategy == "wheel"):
        return s.base_image
    return s.registry_image if s.backend == "cpu" and s.image_strategy == "registry" else ""


def mirror_rows(
    s: Settings, answers: Sequence[tuple[Mapping[str, Any], Mapping[str, Any] | None]], *, where: str, there: bool, sealed: bool
) -> list[Row]:
    """A row a mirror: (question, answer). Only where none serves it is a fault, and not where the model is on the host already (`there`).

    `sealed`: there is a token that was not opened, so what is gated cannot be judged.
    """
    judged = [(str(question["endpoint"]), *_mirror(s, answer, sealed=sealed)) for question, answer in answers]
    serves = any(level == "ok" for _, level, *_ in judged)
    unsure = any(level == "not seen" for _, level, *_ in judged)
    rows = []
    for number, (endpoint, level, text, remedy) in enumerate(judged):
        if level == "fail" and (serves or there or unsure):
            level = "warn"
            last = number == len(judged) - 1
            text += "; the next one is asked" if serves and not last else "; the model is on the host already" if there else ""
        rows.append(Row(_host(endpoint), level, f"{text} (asked from {where})", remedy))
    return rows


def _mirror(s: Settings, answer: Mapping[str, Any] | None, *, sealed: bool) -> tuple[Level, str, str]:
    other = "set modelMirrors to what this host reaches" if s.model_source == "hub" else "set modelscopeEndpoint, or modelSource to hub"
    way = f"{other}; httpsProxy and caBundle where a company's proxy stands between, or modelSource directory or archive"
    if answer is None:
        return "fail", "no answer in time", way
    if answer.get("failure"):
        return "not seen", str(answer["failure"]), ""
    if control := answer["control"]:
        kind = answer["kind"]
        if kind == GATED:
            return ("not seen", f"{control}, and modelToken was not opened to try", "") if sealed else (
                "fail", str(control), "accept its terms on the model's page, then: pulumi config set --secret modelToken"
            )  # fmt: skip
        if kind in (REVISION, ABSENT):
            return "fail", str(control), "correct model and modelRevision, or set modelMirrors to one that has them"
        return "fail", _certificate(f"it {control}"), way if "CERTIFICATE_VERIFY" not in control else TRUST
    size = f"{answer['bytes'] / 1e9:.1f} GB"
    if answer["data"]:
        return (
            "fail",
            _certificate(f"it lists the revision ({size}), but asked for its largest file it {answer['data']}"),
            f"let this host reach it too, or {other}",
        )
    by = f" by {answer['through']}" if answer["through"] else ""
    return "ok", f"lists the revision ({size}) and sends it{by}", ""


TRUST = "put the CA of your company's proxy into certs/ and set caBundle to its file name (certs/README.md); where the clock is wrong, set that first"


def _certificate(text: str) -> str:
    """OpenSSL's own words of a certificate, in short, and the resolver's of a name."""
    if "CERTIFICATE_VERIFY_FAILED" not in text:
        return re.sub(r"gaierror: \[Errno -?\d+\] ", "its name is not found: ", text)
    why = text.split("certificate verify failed:", 1)[-1].split("(_ssl", 1)[0].strip(" :)")
    return f"its certificate is not believed ({why})"


def index_row(url: str, answer: Mapping[str, Any] | None, *, where: str, built: bool, without: str) -> Row:
    """A package index, asked for a page that the build asks it for. `built`: the image is there, so that only another build would ask; `without`: what is done then."""
    name = _host(url)
    if answer and answer.get("status") == 200:
        return Row(name, "ok", f"answers for {urlsplit(url).path} (asked from {where})")
    level: Level = "warn" if built or without else "fail"
    later = f"; {without}" if without else "; the image is built already, another build would fail" if built else ""
    way = "set packageIndex to a mirror that this host reaches; httpsProxy and caBundle where a company's proxy stands between"
    if without:
        way = "name another in torchIndexes, or none with []"
    said = "no answer in time" if answer is None else str(answer.get("failure") or f"answered {answer['status']}")
    if "CERTIFICATE_VERIFY_FAILED" in said:
        way = TRUST
    return Row(name, level, f"{url}: {_certificate(said)} (asked from {where}){later}", way)


def registry_row(s: Settings, answers: Mapping[str, Answer], *, there: bool) -> Row:
    """The base image, asked for by the daemon itself at each registry: `answers` by the name it has there. `there`: the daemon has the image."""
    image = _short(base(s))
    if there:
        return Row("base image", "ok", f"{image} is on the Docker host already")
    if has := next((name for name, answer in answers.items() if answer.has == "yes"), ""):
        return Row("base image", "ok", f"{split(has)[0]} has {image} (asked by the Docker daemon)")
    if any(answer.has == "unknown" for answer in answers.values()):
        return Row("base image", "not seen", f"{image} is not on the Docker host, and this daemon cannot ask a registry without a pull")
    tried = "; ".join(f"{split(name)[0]}: {GO.sub('', answer.why)}" for name, answer in answers.items())
    way = "set imageRegistries to what the daemon reaches, give the daemon a proxy (docs.docker.com/engine/daemon/proxy), or pull the image there by hand"
    if s.image_from_packages and base(s) == s.base_image:
        return Row(
            "base image",
            "warn",
            f"no registry gives the Docker daemon {image} ({tried}); it would be made from Debian's packages where that can be",
            way,
        )
    return Row("base image", "fail", f"no registry gives the Docker daemon {image}: {tried}", way)


def _short(image: str) -> str:
    name, _, digest = image.partition("@sha256:")
    return f"{name}@sha256:{digest[:8]}…" if digest else name


def proxy_row(s: Settings, environment: Mapping[str, str], info: Mapping[str, Any]) -> Row:
    """The three places that have a proxy or none: the stack's keys (build, download), the daemon (pulls), this machine (the programs that make runs)."""
    mine = {key: next((environment[name] for name in names if environment.get(name)), "") for key, names in PROXIES.items()}
    daemon = {"httpProxy": str(info.get("HttpProxy") or ""), "httpsProxy": str(info.get("HttpsProxy") or "")}
    keys = {"httpProxy": s.http_proxy, "httpsProxy": s.https_proxy}
    said = "; ".join(
        f"{who} {', '.join(f'{key} {_bare(value)}' for key, value in pairs.items() if value) or 'none'}"
        for who, pairs in (("stack", keys), ("Docker daemon", daemon), ("this shell", mine))
    )
    inside = next((f"{key} {_bare(value)}" for key, value in keys.items() if value and _loopback(value)), "")
    if inside and (s.model_network != "host" or s.build_network != "host"):
        return Row(
            "proxy",
            "fail",
            f"{inside} is the container's own loopback when it is used in the image build and the download; {said}",
            "give the proxy's address on the Docker network, or set buildNetwork and modelNetwork to host",
        )
    for key, value in mine.items():
        if value and not keys[key]:
            return Row(
                "proxy",
                "warn",
                f"this shell uses one that image build and download do not get; {said}",
                f"if nothing is reached without it: pulumi config set {key} {_bare(value)}",
            )
    if any(keys.values()) and not any(daemon.values()) and base(s):
        return Row(
            "proxy",
            "warn",
            f"the Docker daemon pulls the base image without one; {said}",
            "if nothing is reached without it, give the daemon one too: docs.docker.com/engine/daemon/proxy",
        )
    return Row("proxy", "ok", said)


def _bare(url: str) -> str:
    """An address without the user and password in it."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _loopback(url: str) -> bool:
    name = urlsplit(url).hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def ca_row(s: Settings, checkout: Path | None) -> tuple[Row, str]:
    """The company's CA, and its text for the probe; '' where there is none."""
    if not s.ca_bundle:
        return Row("caBundle", "ok", "none: the certificates that the images bring are trusted"), ""
    if checkout is None:
        return Row("caBundle", "not seen", f"certs/{s.ca_bundle} is in the checkout"), ""
    path, cure = checkout / "certs" / s.ca_bundle, "copy your company's CA there as PEM: certs/README.md"
    try:
        text = path.read_text(encoding="utf-8")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=text)
        count = len(context.get_ca_certs())
    except (OSError, UnicodeDecodeError, ssl.SSLError, ValueError) as error:
        why = "is not there, or not to be read" if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else "is no PEM certificate"
        return Row("caBundle", "fail", f"{path} {why}", cure), ""
    if not count:
        return Row("caBundle", "fail", f"{path} holds no certificate of an authority", cure), text
    return Row("caBundle", "ok", f"certs/{s.ca_bundle}: {count} certificate{'s' if count > 1 else ''} of an authority"), text


def clock_row(answers: Iterable[tuple[str, Mapping[str, Any] | None]], *, where: str, here: bool, said: Facts | None) -> Row:
    """The clocks: (address, the probe's answer); `here`: that was asked from this machine; `said`: of the Docker daemon."""
    beside = [(_host(url), float(answer["ahead"])) for url, answer in answers if answer and answer.get("ahead") is not None]
    mine = min(beside, key=lambda pair: abs(pair[1]), default=None)  # the one that agrees most is right
    cure = "set the clock that is wrong: timedatectl set-ntp true"
    found: list[tuple[float, str]] = []
    if mine:
        found.append((abs(mine[1]), f"{'this machine' if here else where} is {_apart(-mine[1])} {mine[0]}"))
    if said and said.kind == "linux":
        found.append((abs(said.ahead), f"the Docker host is {_apart(said.ahead)} this machine"))
    if not found:
        return Row("clock", "not seen", "no mirror said its time, and no Docker daemon")
    worst, text = max(apart for apart, _ in found), "; ".join(text for _, text in found)
    level: Level = "fail" if worst > WRONG_CLOCK_SECONDS else "warn" if worst > CLOCK_SECONDS else "ok"
    return Row("clock", level, text, "" if level == "ok" else cure)


def _apart(ahead: float) -> str:
    if abs(ahead) <= 60:
        return "within a minute of"
    return f"{span(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'}"


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]
