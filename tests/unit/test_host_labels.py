"""host/labels.py: whose a thing is, and which incarnation."""

import re

from host import labels


def test_the_owner_is_project_and_stack_so_that_two_stacks_keep_off_each_others_things() -> None:
    assert labels.owner("ragflow-reranker", "laptop") == "ragflow-reranker/laptop"
    assert labels.owned({labels.OWNER: "ragflow-reranker/laptop"}, "ragflow-reranker/laptop")
    assert not labels.owned({labels.OWNER: "ragflow-reranker/home"}, "ragflow-reranker/laptop")
    assert not labels.owned({}, "ragflow-reranker/laptop")


def test_a_volume_keeps_its_generation_while_it_lives() -> None:
    assert labels.generation({labels.GENERATION: "4f2a"}) == "4f2a"


def test_a_volume_that_is_gone_or_was_never_labelled_gets_a_new_generation_each_time() -> None:
    for lost in (None, {}, {labels.OWNER: "somebody"}):
        fresh = {labels.generation(lost) for _ in range(20)}
        assert len(fresh) == 20
        assert all(re.fullmatch("[0-9a-f]{8}", value) for value in fresh)


def test_an_attachment_of_ours_is_known_by_its_alias() -> None:
    ours = labels.attachment(None, "ragflow-reranker/laptop")
    assert re.fullmatch("attachment-[0-9a-f]{8}-[0-9a-f]{8}", ours)
    assert labels.attachment(("ragflow-cpu", "0123456789ab", ours), "ragflow-reranker/laptop") == ours


def test_an_attachment_that_is_lost_gets_a_new_name_so_that_the_preview_shows_it() -> None:
    assert labels.attachment(None, "p/s") != labels.attachment(None, "p/s")


def test_an_attachment_of_somebody_else_or_of_another_stack_is_not_ours() -> None:
    another = labels.attachment(None, "ragflow-reranker/home")
    assert labels.attachment((), "ragflow-reranker/laptop") == labels.BY_OTHERS
    assert labels.attachment(("ragflow-cpu", another), "ragflow-reranker/laptop") == labels.BY_OTHERS
    assert not another.startswith(labels.attachment(None, "ragflow-reranker/laptop")[: len("attachment-00000000-")])
