"""What can go wrong with a call: one tree, and with each the remedy. No text of a key, a query or a document stands in any of them."""

from collections.abc import Sequence


class RerankError(Exception):
    """A call that gave no scores. `remedy` says what to do; `status` is the HTTP status where there was one; `repeatable`: the same call may succeed soon."""

    def __init__(self, message: str, *, remedy: str = "", status: int | None = None, repeatable: bool = False) -> None:
        super().__init__(message)
        self.message, self.remedy, self.status, self.repeatable = message, remedy, status, repeatable

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class InvalidInput(RerankError, ValueError):
    """What the caller gave cannot be sent: an address, a key, a document, a number. Nothing was sent."""


class Unreachable(RerankError):
    """Nobody answers there: refused, no such name, TLS, a proxy or gateway in between, hung up before an answer."""


class Unauthorised(RerankError):
    """The API key is missing or wrong."""


class WrongModel(RerankError):
    """The service has no model of that name; `names` are those it has, empty where it would not say."""

    def __init__(self, message: str, *, names: Sequence[str] = (), remedy: str = "", status: int | None = None) -> None:
        super().__init__(message, remedy=remedy, status=status)
        self.names = tuple(names)


class TooLong(RerankError):
    """The query, or a single document, is more than the service takes; splitting does not help."""


class Overloaded(RerankError):
    """The service cannot answer now; `retry_after` is the seconds after which it says to ask again, None where it says nothing."""

    def __init__(self, message: str, *, retry_after: float | None = None, remedy: str = "", status: int | None = None) -> None:
        super().__init__(message, remedy=remedy, status=status, repeatable=retry_after is not None)
        self.retry_after = retry_after


class TimedOut(RerankError, TimeoutError):
    """The call's time is over."""


class MalformedAnswer(RerankError):
    """What came back is no answer of a rerank service, or contradicts itself."""


class Rejected(RerankError):
    """The service refuses the request for another reason, in its own words; redirects too, which are not followed."""


class Failed(RerankError):
    """The service itself failed (5xx); its log says why."""
