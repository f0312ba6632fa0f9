from __future__ import annotations

from policies.edge.settings import NO_EDGE, EdgeSettings


def test_without_a_word_of_the_operator_all_is_as_it_would_be() -> None:
    assert EdgeSettings() == NO_EDGE
