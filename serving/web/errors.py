"""Answers other than 200, and the one table of what the refusals of rank/ mean in HTTP."""

from collections.abc import Sequence
from typing import Any

from serving.rank.refusals import BadQuery, Busy, Failed, Late, Refusal


class ApiError(Exception):
    """An answer other than 200, in vLLM's shape: status, its type, what went wrong, and the parameter it is about."""

    def __init__(
        self, status: int, kind: str, message: str, param: str | None = None, headers: Sequence[tuple[str, str]] = (), why: str = ""
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.param, self.headers, self.why = status, kind, message, param, tuple(headers), why

    @classmethod
    def of_field(cls, kind: str, field: str, message: str, place: int | None = None) -> "ApiError":
        """400 about a field of the request, or (field "") the request as a whole; `place` of a value in the field's list, from 0."""
        param = f"body.{field}" if field else "body"
        loc = param if place is None else f"{param}.{_digits(place)}"
        return cls(400, "Bad Request", f"1 validation error:\n  {{'type': '{kind}', 'loc': '{loc}', 'msg': '{message}'}}", param)

    @classmethod
    def unavailable(cls, message: str, retry_after: int, why: str) -> "ApiError":
        """503 with the seconds after which a caller should ask again; `why` is a word for the metrics."""
        return cls(503, "ServiceUnavailableError", message, headers=[("retry-after", str(max(1, retry_after)))], why=why)

    @classmethod
    def of(cls, refusal: Refusal) -> "ApiError":
        """What HTTP makes of a refusal."""
        if isinstance(refusal, BadQuery):
            return cls(400, "BadRequestError", str(refusal), "query")
        return cls.unavailable(str(refusal), refusal.retry_after, WHY[type(refusal)])

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}}


def _digits(number: int) -> str:
    """The number, but for one that RAGFlow would take for the status of a wrong login, which is written apart: '4 01'."""
    return str(number).replace("401", "4 01")


# Refusals that a caller may try again after, by the word that the metrics have for them.
WHY: dict[type[Refusal], str] = {Busy: "busy", Late: "deadline", Failed: "engine"}
