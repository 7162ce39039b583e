"""The table of cases.py, each row whole, byte by byte, and cut in two."""

import pytest

from tests.http2.cases import CASES, STATES, Case
from tests.http2.wire import event_in_words, frames_in_words

MANY_CUTS = 300
"""Rows up to this size are cut at every byte, others at so many places."""


def _pieces(comes: bytes) -> list[list[bytes]]:
    step = max(1, len(comes) // MANY_CUTS)
    cuts = [[comes[:at], comes[at:]] for at in range(1, len(comes), step)]
    return [[comes], [comes[at : at + 1] for at in range(len(comes))], *cuts]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.section}: {case.rule}")
def test_case(case: Case) -> None:
    for pieces in _pieces(case.comes):
        endpoint = STATES[case.state]()
        if case.state == "new":
            endpoint.take_output()
        words = [event_in_words(event) for piece in pieces for event in endpoint.receive(piece, 0.0)]
        assert words == list(case.events)
        assert frames_in_words(endpoint.take_output()) == list(case.sends)
        assert endpoint.is_over == any(word.startswith("failed") for word in words)
        if endpoint.is_over:
            assert endpoint.receive(case.comes, 0.0) == []


def test_rows_are_told_apart() -> None:
    names = [(case.section, case.rule, case.state) for case in CASES]
    assert len(set(names)) == len(names)
