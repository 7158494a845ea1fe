"""host/labels.py: whose a thing is, and which incarnation."""

import re

from host import labels
from tests.unit.builders import a_deployment

OLD = {labels.OWNER: "ragflow-reranker/test", labels.GENERATION: "4f2a"}
THEIRS = {labels.OWNER: "ragflow-reranker/test/ffffffff", labels.GENERATION: "4f2a"}


def test_two_checkouts_with_one_stack_name_are_two_deployments() -> None:
    ours = a_deployment()
    assert ours.owner == "ragflow-reranker/test/0a1b2c3d"
    for asked in (ours.made_it, ours.holds, ours.runs):
        assert asked({labels.OWNER: ours.owner})
        assert not asked(THEIRS)
        assert not asked({})


def test_what_was_made_before_there_were_identities_is_ours_where_our_state_lists_it() -> None:
    assert a_deployment(known=frozenset({"4f2a"})).made_it(OLD)
    assert not a_deployment().made_it(OLD)
    # an incarnation alone says nothing of what has an identity
    assert not a_deployment(known=frozenset({"4f2a"})).made_it(THEIRS)


def test_a_renamed_stack_is_the_same_deployment() -> None:
    assert a_deployment(stack="ragflow-reranker/renamed").made_it({labels.OWNER: "ragflow-reranker/test/0a1b2c3d"})


def test_what_was_taken_over_stays_ours_but_for_a_container_that_was_made_there_since() -> None:
    taking = a_deployment(taking="ffffffff", heir_of=("ffffffff",))
    assert taking.runs(THEIRS)
    assert taking.holds(THEIRS)
    assert not taking.made_it(THEIRS)
    later = a_deployment(heir_of=("ffffffff",))
    assert later.holds(THEIRS)
    assert not later.runs(THEIRS)


def test_a_volume_of_ours_keeps_its_labels_for_other_ones_would_replace_it() -> None:
    assert labels.marks(OLD, a_deployment(known=frozenset({"4f2a"}))) == OLD
    assert labels.marks(THEIRS, a_deployment(heir_of=("ffffffff",))) == THEIRS
    fresh = labels.marks(None, a_deployment())
    assert (fresh[labels.OWNER], fresh[labels.MADE]) == (a_deployment().owner, a_deployment().made)
    assert labels.marks(fresh, a_deployment()) == fresh


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


def test_an_attachment_that_our_state_lists_is_ours_under_whatever_name() -> None:
    assert labels.attachment(("ragflow-cpu", "attachment-old-1"), "0a1b2c3d", {"attachment-old-1"}) == "attachment-old-1"
