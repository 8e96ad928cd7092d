"""What belongs to a function and goes with it."""

import pytest

from torpor.model.errors import NotFound
from torpor.service.attachments import Attachments
from torpor.service.resources import Resources
from torpor.store.memory import MemoryMetadataStore

KINDS = ("policy", "url")


def attachments(store: MemoryMetadataStore) -> Attachments:
    return Attachments(Resources(store), KINDS)


def test_documents_outlive_the_service() -> None:
    store = MemoryMetadataStore()
    attachments(store).put("policy", "f", "live", {"a": 1})
    again = attachments(store)
    assert again.find("policy", "f", "live") == {"a": 1}
    assert again.find("policy", "f") is None
    assert again.find("url", "f", "live") is None


def test_documents_are_found_by_function_and_kind() -> None:
    made = attachments(MemoryMetadataStore())
    for function, qualifier in (("g", ""), ("f", "2"), ("f", "1")):
        made.put("url", function, qualifier, {"q": qualifier})
    made.put("policy", "f", "", {})
    assert made.of("url", "f") == [("1", {"q": "1"}), ("2", {"q": "2"})]
    assert made.of("url", "nothing") == []
    assert made.functions("url") == ["f", "g"]


def test_function_takes_everything_with_it_and_a_version_its_own() -> None:
    store = MemoryMetadataStore()
    made = attachments(store)
    for kind in KINDS:
        for qualifier in ("", "1", "live"):
            made.put(kind, "f", qualifier, {})
    made.put("url", "fun", "", {})
    made.forget("f", "1")
    assert [qualifier for qualifier, _ in made.of("policy", "f")] == ["", "live"]
    made.forget("f")
    assert [made.functions(kind) for kind in KINDS] == [[], ["fun"]]
    assert [attachments(store).functions(kind) for kind in KINDS] == [[], ["fun"]]
    made.forget("f")


def test_what_is_not_there_cannot_be_removed() -> None:
    made = attachments(MemoryMetadataStore())
    made.put("policy", "f", "", {})
    made.remove("policy", "f")
    with pytest.raises(NotFound):
        made.remove("policy", "f")
