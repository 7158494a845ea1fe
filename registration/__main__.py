"""python3 -m registration register | unregister | check: what is wanted in the environment, both keys as JSON by standard input, the model's id on standard output."""

import os
import sys
from collections.abc import Mapping
from typing import TextIO

from registration.api import Api, Refused, WrongKey
from registration.entry import Entry, Place
from registration.handed import taken
from registration.transport import Transport, Unreachable, transport
from registration.verbs import WRONG_KEY, CannotRegister, check, register, unregister


def shown(error: Exception, place: Place, entry: Entry) -> str:
    """An error in words with a remedy, no key in them: RAGFlow may repeat what it was sent."""
    if isinstance(error, WrongKey):
        return WRONG_KEY
    text = str(error)
    for key in (place.key, entry.api_key):
        text = text.replace(key, "***") if len(key) > 3 else text
    if isinstance(error, Unreachable):
        other = "or set ragflowUrl to an address of its API" if place.container else "correct the address, or set ragflowUrl to container"
        return f"ragflowUrl: {text}; start RAGFlow, {other}"
    return text if isinstance(error, CannotRegister) else f"RAGFlow refused the reranker: {text}"


def main(argv: list[str], environment: Mapping[str, str], given: TextIO, *, send: Transport | None = None) -> int:
    """The exit status. `send` is for tests."""
    verbs = {"register": register, "unregister": unregister, "check": check}
    if len(argv) != 1 or argv[0] not in verbs:
        print(f"usage: python3 -m registration {'|'.join(verbs)}", file=sys.stderr)
        return 2
    place, entry = taken(environment, given.read())
    api = Api(send or transport(place))
    try:
        done = verbs[argv[0]](api, entry)
    except (Unreachable, Refused, CannotRegister) as error:
        sentence = shown(error, place, entry)
        if argv != ["unregister"]:
            print(sentence, file=sys.stderr)
            return 1
        # a RAGFlow that is gone must not keep a stack from being destroyed
        print(f"warning: the reranker may still be entered in RAGFlow: {sentence}; remove it there by hand: VLLM, {entry.instance}", file=sys.stderr)
        return 0
    for sentence in done.said if argv != ["check"] else ():
        print(f"warning: {sentence}", file=sys.stderr)
    if done.model_id:
        print(*done.said, done.model_id) if argv == ["check"] else print(done.model_id)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ, sys.stdin))
