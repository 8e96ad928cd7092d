"""Resources by kind and name: what is kept, and what is refused."""

from collections.abc import Mapping
from typing import Any

import pytest

from torpor.model.errors import Conflict, NotFound, StoreUnavailable
from torpor.service.resources import Resources
from torpor.store.memory import MemoryMetadataStore


class FailingStore(MemoryMetadataStore):
    def save_resource(self, kind: str, name: str, document: Mapping[str, Any]) -> None:
        raise StoreUnavailable("The disk is gone.")

    def remove_resource(self, kind: str, name: str) -> None:
        raise StoreUnavailable("The disk is gone.")


def test_resources_are_kept_by_kind_and_name_and_outlive_the_service() -> None:
    store = MemoryMetadataStore()
    resources = Resources(store)
    resources.put("pool", "b", {"size": 1})
    resources.put("pool", "a", {"size": 2})
    resources.put("pool", "b", {"size": 3})
    for service in (resources, Resources(store)):
        assert service.list("pool") == [("a", {"size": 2}), ("b", {"size": 3})]
        assert service.get("pool", "b") == {"size": 3} and service.list("other") == []


def test_taken_name_conflicts_where_a_new_one_is_meant() -> None:
    resources = Resources(MemoryMetadataStore())
    resources.put("pool", "a", {"size": 1}, create=True)
    resources.put("other", "a", {"size": 2}, create=True)
    with pytest.raises(Conflict):
        resources.put("pool", "a", {"size": 3}, create=True)
    assert resources.get("pool", "a") == {"size": 1}


def test_removed_and_unknown_resources_are_not_found() -> None:
    resources = Resources(MemoryMetadataStore())
    resources.put("pool", "a", {})
    resources.remove("pool", "a")
    for call in (resources.get, resources.remove):
        with pytest.raises(NotFound) as caught:
            call("pool", "a")
        assert caught.value.what == "pool"


def test_document_changed_by_its_giver_later_stays_as_it_was() -> None:
    resources, inner = Resources(MemoryMetadataStore()), [1]
    resources.put("pool", "a", {"list": inner})
    inner.append(2)
    assert resources.get("pool", "a") == {"list": [1]}


def test_failing_store_changes_nothing() -> None:
    store = FailingStore()
    MemoryMetadataStore.save_resource(store, "pool", "a", {"size": 1})
    resources = Resources(store)
    with pytest.raises(StoreUnavailable):
        resources.put("pool", "b", {})
    with pytest.raises(StoreUnavailable):
        resources.remove("pool", "a")
    assert resources.list("pool") == [("a", {"size": 1})]
