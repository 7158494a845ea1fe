"""From the figures to the choice, the table and the plot: pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.serving.report import MISSED, OTHER, OURS, Chart, drawing, rows
from bench.waiting.quality import ORDERS
from rerank.bench.stats import number

Found = dict[str, Any]
PATIENCE_SECONDS = 30  # RAGFlow waits so long for one rerank, so that is what people who ask it may have to wait today
ALIKE = "roughly best first"  # the order that RAGFlow's first stage most likely gives
SHOWN_SPEED = 400
BUSY_SPEEDS = (100, 400, 1500)  # in the tables of the pauses; the .json has all
RULE = (
    f"the longest deadline under which three people who ask at the same moment all have their answers within {PATIENCE_SECONDS} s, RAGFlow's own "
    "patience with one rerank, and no question is refused, on every machine"
)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The default of deadlineSeconds, and the figures that chose it."""

    deadline: int
    third: float  # seconds that the third of three waited, on the machine where that was longest

    @property
    def sentence(self) -> str:
        return f"{self.deadline} s: {RULE} (the third waits {self.third:.1f} s at most)."


def chosen(found: Sequence[Found]) -> Choice:
    """By RULE; ValueError where no deadline follows it."""
    fits = []
    for deadline in sorted({row["deadline"] for row in found}):
        mine = [row for row in found if row["deadline"] == deadline]
        third = max(row["wait of asker 3"] for row in mine if (row["pattern"], row["users"]) == ("at once", 3))
        if third <= PATIENCE_SECONDS and not any(row["refused"] for row in mine):
            fits.append(Choice(deadline=deadline, third=third))
    if not fits:
        raise ValueError("no deadline follows the rule: " + RULE)
    return fits[-1]


def _of(found: Sequence[Found], pattern: str, users: int, speed: int, deadline: int) -> Found:
    return next(row for row in found if (row["pattern"], row["users"], row["tokens/s"], row["deadline"]) == (pattern, users, speed, deadline))


def _each(found: Sequence[Found], name: str) -> list[int]:
    return sorted({row[name] for row in found})


def table(results: Found) -> str:
    found = results["rows"]
    deadlines, speeds, users = (_each(found, name) for name in ("deadline", "tokens/s", "users"))
    parts = [
        "# How long RAGFlow stands still, by deadline\n\n"
        "`python -m bench.waiting` writes this file, the plot beside it and the .json that both are made of; nothing here is edited by hand. It is a simulation: "
        "virtual time, this project's own scheduler, scorer and budget, and machines that compute so many tokens a second. RAGFlow asks as it does since v0.24: "
        "while one rerank runs, its whole API server stands still, and further questions wait for their turn. 66 documents in a question, four of five about "
        f"512 tokens and the others the rests of sections. Each user asks, has the answer, and asks again after a minute or an hour on average ({results['questions']} "
        f"questions), or all ask at the same moment ({results['rounds']} times). What else RAGFlow does takes no time here.\n\n"
        "Waits are to the end of a question's own rerank. RAGFlow v0.27.0 was seen to write the answers of all who asked at once only at the end of the longest "
        "stretch.\n\n"
        f"**Chosen: {chosen(found).sentence}**\n\n"
        "![What each deadline costs](waiting.svg)\n",
        "## What a question gets\n\n"
        "Agreement: of the top 8 with the answer without a deadline, read off figure 3 of [serving.md](serving.md) at the share of the tokens that was computed. A "
        "model: the documents there are half as long and the ranking model is a small one; where less than 5 % was computed it says what 5 % gave there.\n\n"
        + rows(
            [
                "tokens/s",
                "deadline, s",
                "answer after, s",
                "documents scored",
                "tokens kept",
                "share of tokens",
                *(f"agreement, {order}" for order in ORDERS),
            ],
            [_answer(_of(found, "at once", 1, speed, deadline)) for speed in speeds for deadline in deadlines],
        ),
        "## Three who ask at once\n\n"
        + rows(
            ["tokens/s", "deadline, s", "second waits, s", "third waits, s", "RAGFlow stands still, s", "ten at once: still, s"],
            [_three(found, speed, deadline) for speed in speeds for deadline in deadlines],
        ),
    ]
    for pattern in (name for name in dict.fromkeys(row["pattern"] for row in found) if name != "at once"):
        header = [f"{count} user{'s' if count > 1 else ''}: {what}" for count in users for what in ("still", "longest, s", "p95 wait, s")]
        parts.append(
            f"## Each asks once {pattern}\n\nShare of the time in which RAGFlow stands still, the longest stretch of it, and the wait that 95 of 100 questions do not "
            "exceed.\n\n"
            + rows(
                ["tokens/s", "deadline, s", *header],
                [
                    [str(speed), str(deadline), *(cell for count in users for cell in _busy(_of(found, pattern, count, speed, deadline)))]
                    for speed in BUSY_SPEEDS
                    for deadline in deadlines
                ],
            )
        )
    return "\n".join(parts)


def short(results: Found) -> str:
    """The lines of the table in docs/calls.md."""
    lines = []
    for deadline in _each(results["rows"], "deadline"):
        one, three = (_of(results["rows"], "at once", users, SHOWN_SPEED, deadline) for users in (1, 3))
        fast = _of(results["rows"], "at once", 1, max(_each(results["rows"], "tokens/s")), deadline)
        said = [f"{three['wait of asker 3']:.0f} s", f"{one['documents']:.0f}", *(f"{row['top 8'][ALIKE]:.2f}" for row in (one, fast))]
        lines.append(f"| {deadline} | {' | '.join(said)} |\n")
    return "".join(lines)


def _answer(row: Found) -> list[str]:
    said = [str(row["tokens/s"]), str(row["deadline"])]
    if not row["documents"]:
        return [*said, "refused", "0", "-", "-", *("-" for _ in ORDERS)]
    return [
        *said,
        number(row["longest call"]),
        f"{row['documents']:.0f}",
        f"{row['tokens kept']:.0f}",
        f"{row['share of tokens']:.0%}",
        *(f"{row['top 8'][order]:.2f}" for order in ORDERS),
    ]


def _three(found: Sequence[Found], speed: int, deadline: int) -> list[str]:
    three, ten = (_of(found, "at once", users, speed, deadline) for users in (3, 10))
    waits = [number(three[name]) if three["documents"] else "refused" for name in ("wait of asker 2", "wait of asker 3", "longest stretch")]
    return [str(speed), str(deadline), *waits, number(ten["longest stretch"]) if ten["documents"] else "refused"]


def _busy(row: Found) -> list[str]:
    return [f"{row['share of time']:.1%}", number(row["longest stretch"]), number(row["p95 wait"])] if row["documents"] else ["refused"] * 3


def plot(results: Found) -> str:
    """What a deadline costs in waiting and in ranking, as bars; the chosen one is dark."""
    found = results["rows"]
    best = chosen(found).deadline
    deadlines = _each(found, "deadline")

    def chart(title: str, pattern: str, users: int, speed: int, value: Any, goal: float | None = None) -> Chart:
        values = [(deadline, value(_of(found, pattern, users, speed, deadline))) for deadline in deadlines]
        return (
            title,
            [(f"{deadline} s", amount, MISSED if goal and amount > goal else OURS if deadline == best else OTHER) for deadline, amount in values],
            goal,
        )

    at = f"{SHOWN_SPEED} tokens/s"
    charts = [
        chart(f"wait of the third of three who ask at once, s, {at} (line: 30)", "at once", 3, SHOWN_SPEED, lambda row: row["wait of asker 3"], 30.0),
        chart(
            f"share of time that RAGFlow stands still, 3 users, a question a minute each, {at}",
            "a minute",
            3,
            SHOWN_SPEED,
            lambda row: row["share of time"],
        ),
        *(
            chart(f"agreement of the top 8, {ALIKE}, {speed} tokens/s", "at once", 1, speed, lambda row: row["top 8"][ALIKE])
            for speed in _each(found, "tokens/s")
        ),
    ]
    return drawing(charts)
