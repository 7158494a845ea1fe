"""Arguments that derive from a dataclass: what argv writes, read reads, and nothing else passes."""

import dataclasses
import itertools
import random
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from serving import dials
from serving.dials import Rule, between, dial, one_of
from serving.launch.mock import MockOptions
from serving.launch.options import LaunchDials, LaunchOptions
from serving.options import ServiceDials, ServiceOptions
from tests.support.options import launch_options, service_options

# None begins with a dash, which would be a flag: where a user's text might, the dial's rule forbids it.
TEXTS = ("", " ", "a", "two words", "北京 😀", "quo\"te 'd", "back\\slash\n\t", "a=b", "$HOME *", "#", "@file", "x" * 5_000)
COMMANDS = [
    pytest.param(service_options(), id="service"),
    pytest.param(launch_options(), id="launch"),
    pytest.param(dials.take(MockOptions, service_options()), id="mock"),
]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A field of every kind."""

    text: str = dial("a text")
    number: int = dial("a number", between(-5, 1000, "pieces"))
    share: float = dial("a share")
    wanted: bool = dial("whether it is wanted")
    names: tuple[str, ...] = dial("some names")
    kind: str = dial("one of two", one_of("first", "second"), default="first")
    count: int = dial("a number that may be left out", default=7)
    spared: bool = dial(default=False)
    kept: bool = dial(default=True)
    places: tuple[int, ...] = dial(default=())


def sample(**changes: Any) -> Sample:
    plain = Sample(text="t", number=1, share=0.5, wanted=True, names=("n",))
    return dataclasses.replace(plain, **changes)


def read(argv: list[str]) -> Sample:
    return dials.read(Sample, argv, prog="sample")


def refused(argv: list[str], options: type[Any], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of arguments that end the command with status 2."""
    with pytest.raises(SystemExit) as ended:
        dials.read(options, argv, prog="prog")
    assert ended.value.code == 2
    return capsys.readouterr().err


# -- there and back


def test_what_argv_writes_read_reads_whatever_the_values() -> None:
    rng = random.Random(9)
    for _ in range(2_000):
        given = sample(
            text=rng.choice(TEXTS),
            number=rng.randint(-5, 1000),
            share=rng.choice((0.0, 1 / 3, -1.5, 1e300, 5e-324)),
            wanted=rng.random() < 0.5,
            names=tuple(rng.choice(TEXTS) for _ in range(rng.randint(1, 4))),
            kind=rng.choice(("first", "second")),
            count=rng.choice((7, 0, -1, 10**12)),
            spared=rng.random() < 0.5,
            kept=rng.random() < 0.5,
            places=tuple(rng.randint(-9, 9) for _ in range(rng.randint(0, 3))),
        )
        assert read(dials.argv(given)) == given


def test_arguments_are_words_that_a_shell_never_sees_flag_and_value_apart() -> None:
    assert dials.argv(sample(text="a b", number=-3, wanted=False, names=("x", "y"), kept=False, places=(4,))) == [
        "--text", "a b", "--number", "-3", "--share", "0.5", "--wanted", "off", "--names", "x", "--names", "y", "--kept", "off", "--places", "4"
    ]  # fmt: skip


def test_what_is_at_its_default_is_not_written_and_comes_back() -> None:
    argv = dials.argv(sample())
    assert not {"--kind", "--count", "--spared", "--kept", "--places"} & set(argv)
    assert read(argv) == sample()


def test_the_order_of_the_arguments_says_nothing_and_that_of_many_values_stays() -> None:
    argv = dials.argv(sample(names=("b", "a", "b"), count=3))
    pairs = list(zip(argv[::2], argv[1::2], strict=True))
    others = [pair for pair in pairs if pair[0] != "--names"]
    for shuffled in itertools.islice(itertools.permutations(others), 50):
        words = [word for pair in [*shuffled, *(pair for pair in pairs if pair[0] == "--names")] for word in pair]
        assert read(words) == sample(names=("b", "a", "b"), count=3)


def another(item: "dataclasses.Field[Any]", value: Any) -> Any:
    """A value of the field that keeps its rule and is neither its default nor `value`."""
    rule = item.metadata.get("rule")
    if isinstance(value, bool):
        candidates: list[Any] = [not value]
    elif isinstance(value, int):
        candidates = [*range(2, 100), *(1 << power for power in range(7, 20))]
    elif isinstance(value, str):
        candidates = ['Another "text" \\n 北京', "gpu", "float32", "below", "typical"]
    else:
        candidates = [("one", "two words", "three")]
    fitting = (each for each in candidates if each not in (value, item.default) and (rule is None or rule.holds(each)))
    return next(fitting)


@pytest.mark.parametrize("plain", COMMANDS)
def test_every_field_of_every_command_survives_with_another_value(plain: ServiceOptions) -> None:
    for item in dataclasses.fields(plain):
        changed = dataclasses.replace(plain, **{item.name: another(item, getattr(plain, item.name))})
        assert changed != plain
        argv = dials.argv(changed)
        assert dials.flag(item.name) in argv
        assert dials.read(type(plain), argv, prog="prog") == changed, item.name


def test_no_dial_of_a_stack_has_a_default_here_and_each_but_a_switch_has_a_rule() -> None:
    for stack in (ServiceDials, LaunchDials):
        for item in dataclasses.fields(stack):
            assert item.default is dataclasses.MISSING, item.name
            assert item.type is bool or item.metadata["rule"], item.name


# -- what does not pass


@pytest.mark.parametrize("name", ["text", "number", "share", "wanted", "names"])
def test_a_missing_argument_ends_it_and_is_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = dials.argv(sample())
    at = argv.index(dials.flag(name))
    assert dials.flag(name) in refused(argv[:at] + argv[at + 2 :], Sample, capsys).splitlines()[-1]


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--unknown", "1"], "--unknown"),
        (["--unknown=1"], "--unknown"),
        (["stray"], "stray"),
        (["--tex", "abbreviated"], "--tex"),
        (["--spare", "on"], "--spare"),
        (["--spared"], "--spared"),
        (["--number"], "--number"),
        (["--number", "ten"], "--number"),
        (["--number", "1.5"], "--number"),
        (["--number", ""], "--number"),
        (["--number", "-6"], "--number"),
        (["--number", "1001"], "--number"),
        (["--share", "half"], "--share"),
        (["--wanted", "yes"], "--wanted"),
        (["--wanted", "True"], "--wanted"),
        (["--wanted", "ON"], "--wanted"),
        (["--kept", ""], "--kept"),
        (["--kind", "third"], "--kind"),
        (["--places", "x"], "--places"),
    ],
)
def test_what_is_unknown_or_against_a_rule_ends_it_and_is_named(more: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused([*dials.argv(sample()), *more], Sample, capsys)
    assert named in said.splitlines()[-1]
    assert "Traceback" not in said


def test_the_refusal_says_the_value_and_the_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert "argument --number: '1001' must be from -5 to 1000 pieces" in refused([*dials.argv(sample()), "--number", "1001"], Sample, capsys)
    assert "argument --kind: 'third' must be one of first, second" in refused([*dials.argv(sample()), "--kind", "third"], Sample, capsys)
    assert "argument --wanted: 'yes' must be on or off" in refused([*dials.argv(sample()), "--wanted", "yes"], Sample, capsys)


def outside(rule: Rule, kind: Any) -> str:
    """A value against the rule, as text."""
    candidates: list[Any] = [0, -1, 1, 10**9] if kind is int else ["", "-x", "no such choice", "x" * 5_000]
    return next(str(each) for each in candidates if not rule.holds(each))


@pytest.mark.parametrize("plain", COMMANDS)
def test_every_rule_of_every_command_is_kept_by_its_arguments(plain: ServiceOptions, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = {item.name: item.type for item in dataclasses.fields(plain)}
    rules = dials.rules_of(type(plain))
    assert len(rules) >= 8
    for name, rule in rules:
        wrong = outside(rule, kinds[name])
        said = refused([*dials.argv(plain), f"{dials.flag(name)}={wrong}"], type(plain), capsys)
        assert f"argument {dials.flag(name)}: {wrong!r} {rule.sentence}" in said


@pytest.mark.parametrize("options", [Sample, ServiceOptions, LaunchOptions, MockOptions])
def test_help_names_every_flag(options: type[Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        dials.read(options, ["--help"], prog="prog")
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert [item.name for item in dataclasses.fields(options) if dials.flag(item.name) not in said] == []


# -- the parts


def test_take_reads_the_attributes_that_bear_the_fields_names_and_more_wins() -> None:
    source = SimpleNamespace(text="from the source", number=2, share=0.25, wanted=False, names=("s",), count=9, beside="ignored")
    assert dials.take(Sample, source) == sample(text="from the source", number=2, share=0.25, wanted=False, names=("s",), count=9)
    assert dials.take(Sample, source, text="mine", kind="second") == sample(
        text="mine", number=2, share=0.25, wanted=False, names=("s",), count=9, kind="second"
    )
    with pytest.raises(TypeError, match="names"):
        dials.take(Sample, SimpleNamespace(text="t", number=2, share=0.25, wanted=False))


def test_take_makes_the_options_of_one_command_from_those_of_another() -> None:
    launched = launch_options(max_documents=3, model="/m")
    assert dials.take(ServiceOptions, launched) == service_options(max_documents=3, model="/m", tokens_per_pass=0)
    assert dials.take(ServiceOptions, launched, tokens_per_pass=512).tokens_per_pass == 512


def test_rules_of_gives_the_fields_that_have_a_rule_in_their_order() -> None:
    assert [name for name, _ in dials.rules_of(Sample)] == ["number", "kind"]
    (_, number), (_, kind) = dials.rules_of(Sample)
    assert [number.holds(value) for value in (-6, -5, 1000, 1001)] == [False, True, True, False]
    assert [kind.holds(value) for value in ("first", "third")] == [True, False]


def test_a_flag_is_the_fields_name_with_dashes() -> None:
    assert dials.flag("max_documents") == "--max-documents"
