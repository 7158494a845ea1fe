"""RAGFlow's answers, judged by HTTP status and by `code`: a release answers 200 to a refusal, and some answer 200 to everything."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registration import calls
from registration.calls import Call
from registration.releases import Generation, generation_of
from registration.transport import Answer, Transport


class Refused(Exception):
    """RAGFlow did not do what was asked; the text has its own words."""


class WrongKey(Refused):
    """The API key is not taken."""


class NoSuchRoute(Refused):
    """This release has no such route, or no such method there."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """What runs there. `version` in its own spelling."""

    version: str
    generation: Generation


def judged(call: Call, answer: Answer) -> Any:
    """`data` of an answer that says yes. Raises Refused."""
    path = call.path.split("?")[0]
    try:
        said = json.loads(answer.text)
    except ValueError:
        said = None
    code = said.get("code") if isinstance(said, dict) else None
    message = str(said.get("message") or "") if isinstance(said, dict) else ""
    if answer.status == 401 or code == 401:
        raise WrongKey("it does not take the API key")
    if answer.status in (404, 405) or code in (404, 405) or (code == 100 and re.search(r"MethodNotAllowed|\b40[45]\b|Not ?Found", message)):
        raise NoSuchRoute(f"{call.method} {path} is not there")
    if not isinstance(said, dict) or code is None:
        raise Refused(f"{call.method} {path} answered {answer.status} and nothing that RAGFlow would say; is this the address of its API?")
    if code != 0 or answer.status >= 400:
        raise Refused(message.strip() or f"code {code}")
    return said.get("data")


@dataclass(frozen=True)
class Api:
    """RAGFlow's API by one transport. Every call raises Unreachable or Refused."""

    send: Transport

    def __call__(self, call: Call) -> Any:
        return judged(call, self.send(call))

    def rows(self, call: Call) -> list[Mapping[str, Any]]:
        """A list of objects; [] where there is none, or RAGFlow has no provider or tenant to list of."""
        try:
            found = self(call)
        except (WrongKey, NoSuchRoute):
            raise
        except Refused:
            return []
        return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []

    def release(self) -> Release:
        """Found by what answers; a build without a number by its routes. Raises WrongKey where only a key could tell."""
        for path in calls.VERSIONS:
            try:
                version = str(self(calls.get(path)))
            except NoSuchRoute:
                continue
            return Release(version=version, generation=generation_of(version) or self._by_routes())
        raise Refused("it has none of the routes that tell RAGFlow's version; is this the address of its API?")

    def _by_routes(self) -> Generation:
        for call, generation in ((calls.get(calls.PROVIDERS), Generation.UPDATABLE), (calls.MY_MODELS, Generation.UPSERT)):
            try:
                self(call)
                return generation
            except NoSuchRoute:
                continue
        return Generation.BY_HAND
