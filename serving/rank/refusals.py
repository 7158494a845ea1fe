"""Why a call gets no scores. Each text is one sentence without any text of the user's; what HTTP makes of it is decided in web/."""


class Refusal(Exception):
    """No score for this call; `retry_after` is the seconds after which asking again may help."""

    def __init__(self, message: str, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Busy(Refusal):
    """Others have the engine: not one document would be scored by the deadline."""


class Late(Refusal):
    """The deadline came before a score did."""


class Failed(Refusal):
    """The engine could not score."""


class BadQuery(Refusal):
    """Query and instruction are too long; asking again in the same way does not help."""
