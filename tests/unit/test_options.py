"""What crosses into vLLM's process: the service's options, as one variable."""

import json
from typing import Any

import pytest

from serving.options import VARIABLE, ServiceOptions, hand_over, handed_over
from tests.support.options import service_options


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"instruction": "Say \"ja\" or 'nein' \\ {{ 北京 }}\n", "model": "/models/a b"},
        {"golden_check": False, "cache_entries": 0, "api_key_file": "/run/reranker/api_keys"},
        {"served_model_names": ("one",), "tokens_per_pass": 0, "max_body_mib": 256},
    ],
)
def test_what_was_handed_over_is_what_arrives(changes: dict[str, Any]) -> None:
    environment: dict[str, str] = {"PATH": "/bin"}
    hand_over(service_options(**changes), environment)
    assert environment.keys() == {"PATH", VARIABLE}
    assert handed_over(environment) == service_options(**changes)


def test_the_variable_is_a_list_of_arguments_that_a_person_can_read() -> None:
    environment: dict[str, str] = {}
    hand_over(service_options(), environment)
    words = json.loads(environment["RERANKER_SERVICE"])
    assert words[words.index("--max-documents") + 1] == "200"


def test_a_process_that_was_told_nothing_says_so() -> None:
    with pytest.raises(KeyError, match="RERANKER_SERVICE"):
        handed_over({})


def test_options_against_a_rule_do_not_arrive(capsys: pytest.CaptureFixture[str]) -> None:
    environment: dict[str, str] = {}
    hand_over(service_options(max_documents=0), environment)
    with pytest.raises(SystemExit) as ended:
        handed_over(environment)
    assert ended.value.code == 2
    assert "--max-documents" in capsys.readouterr().err


def test_there_is_no_key_in_the_options_but_only_where_the_keys_are() -> None:
    assert {name for name in ServiceOptions.__dataclass_fields__ if "key" in name} == {"api_key_file"}
