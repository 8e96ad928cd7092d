"""The part of a trace header that counts how often each function was called in a chain."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.lineage import is_circle, stepped
from torpor.contracts.lambda_.tracing import read_trace

ROOT = "Root=1-5759e988-bd862e3fe1be46a994272793"
WHOLE = f"{ROOT};Parent=53995c3f42cd8ad8;Sampled=1"
RESOURCES = st.sampled_from([f"arn:aws:lambda:us-east-1:000000000000:function:f{number}" for number in range(5)])
ONE, TWO = (f"arn:aws:lambda:us-east-1:000000000000:function:{name}" for name in ("one", "two"))


def counted(trace: str) -> dict[str, int]:
    """How often each function stands in a header."""
    _, _, text = read_trace(trace).lineage.partition("1:")
    return {mark: int(number) for mark, number in (each.split(":") for each in text.split("|"))}


def walked(trace: str, *resources: str) -> str:
    for resource in resources:
        trace = stepped(trace, resource)
    return trace


def test_a_header_without_a_count_begins_one() -> None:
    first = stepped(WHOLE, ONE)
    assert first.startswith(f"{WHOLE};Lineage=1:")
    assert list(counted(first).values()) == [1]


def test_each_function_has_a_count_of_its_own_that_goes_up_by_one() -> None:
    assert list(counted(walked(WHOLE, ONE, TWO, ONE, ONE)).values()) == [3, 1]


def test_a_function_has_the_same_mark_in_every_chain_and_shares_it_with_no_other() -> None:
    (mark,) = counted(stepped(WHOLE, ONE))
    assert counted(stepped(ROOT + ";Sampled=0", ONE)) == {mark: 1}
    assert mark not in counted(stepped(WHOLE, TWO))


@pytest.mark.parametrize(
    "form", ["Lineage={}:7", "Lineage=1:{}:7", "Lineage=1:0000abcd:3|{}:7", "Lineage={}:7|0000abcd:3"]
)
@pytest.mark.parametrize("place", ["{0};{1}", "{1};{0}"])
def test_older_and_newer_forms_are_read_wherever_they_stand(form: str, place: str) -> None:
    (mark,) = counted(stepped(WHOLE, ONE))
    told = counted(stepped(place.format(WHOLE, form.format(mark)), ONE))
    assert told.pop(mark) == 8
    assert told in ({}, {"0000abcd": 3})


@pytest.mark.parametrize(
    "trace", ["", "Root=", "nonsense", "Lineage=1:0000abcd:3", "Root=1-5759e988-short;Sampled=1", ";;="]
)
def test_a_header_without_a_root_stays_as_it_is(trace: str) -> None:
    assert stepped(trace, ONE) == trace


def test_the_rest_of_a_header_stays_as_it_is() -> None:
    given = f"Self=1-67891234-12456789abcdef012345678; {WHOLE};Other=value;Lineage=1:0000abcd:3"
    rest, _, lineage = stepped(given, ONE).rpartition(";")
    assert rest == f"Self=1-67891234-12456789abcdef012345678; {WHOLE};Other=value"
    assert lineage.startswith("Lineage=1:0000abcd:3|")


def test_a_function_may_be_called_sixteen_times_in_a_chain() -> None:
    trace = WHOLE
    for _ in range(limits.RECURSION_MAX):
        assert not is_circle(trace, ONE)
        trace = stepped(trace, ONE)
    assert is_circle(trace, ONE)
    assert not is_circle(trace, TWO)


@pytest.mark.parametrize(
    "trace", ["", WHOLE, "Lineage=", f"{WHOLE};Lineage=", f"{WHOLE};Lineage=a:0", f"{WHOLE};Lineage=1:zzzzzzzz:99"]
)
def test_a_header_that_counts_nothing_is_no_circle(trace: str) -> None:
    assert not is_circle(trace, ONE)


def test_a_count_with_more_digits_than_anything_reaches_is_no_failure() -> None:
    (mark,) = counted(stepped(WHOLE, ONE))
    is_circle(f"{WHOLE};Lineage={mark}:{'9' * 5000}", ONE)
    stepped(f"{WHOLE};Lineage={mark}:{'9' * 5000}", ONE)


@given(chain=st.lists(RESOURCES, max_size=60))
def test_counts_are_how_often_each_function_was_called(chain: list[str]) -> None:
    trace = walked(WHOLE, *chain)
    wanted = sorted(chain.count(each) for each in set(chain))
    assert sorted(counted(trace).values()) == wanted if chain else trace == WHOLE
    for each in set(chain):
        assert is_circle(trace, each) is (chain.count(each) >= limits.RECURSION_MAX)


@given(text=st.text(max_size=200), resource=RESOURCES)
def test_no_text_of_a_caller_makes_it_fail(text: str, resource: str) -> None:
    for given_trace in (text, f"{WHOLE};Lineage={text}", f"{text};{WHOLE}"):
        assert isinstance(stepped(given_trace, resource), str)
        assert is_circle(given_trace, resource) in (True, False)
        assert read_trace(stepped(given_trace, resource)).root == read_trace(given_trace).root


@given(
    counts=st.dictionaries(st.text("0123456789abcdef", min_size=8, max_size=8), st.integers(0, 99_999), max_size=50),
    resource=RESOURCES,
)
def test_counts_of_others_stay(counts: dict[str, int], resource: str) -> None:
    lineage = "|".join(f"{mark}:{number}" for mark, number in counts.items())
    told = counted(stepped(f"{WHOLE};Lineage=1:{lineage}", resource))
    (own,) = counted(stepped(WHOLE, resource))
    assert told == {**counts, own: counts.get(own, 0) + 1}
