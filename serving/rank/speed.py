"""How fast this machine scores, learned while it serves."""

import math

HALF_LIFE_SECONDS = 8.0  # of work: short enough to follow a machine that others use as well
FIRST_GUESS = 100.0  # tokens/s of two old cores; the golden set replaces it before the first call


class Speed:
    """Tokens a second over the last work, weighted by time: a small piece of work says little."""

    def __init__(self) -> None:
        self.tokens, self.seconds = 0.0, 0.0

    def learn(self, tokens: int, seconds: float) -> None:
        """`tokens` were computed in `seconds` in which nothing else was; in none, where what came before them was computed in the same pass."""
        if seconds <= 0:
            self.tokens += tokens if self.seconds else 0
            return
        fade = 0.5 ** (seconds / HALF_LIFE_SECONDS)
        counted = (1 - fade) * HALF_LIFE_SECONDS / math.log(2)  # the seconds that are left of it, the first ones faded by the last
        self.tokens = self.tokens * fade + tokens / seconds * counted
        self.seconds = self.seconds * fade + counted

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds > 0 else FIRST_GUESS
