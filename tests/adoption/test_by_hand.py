"""Nodes that are changed by others than the service's ingestions: by its reviewers' scripts, by an administrator. As long as a
change sets ``updated_at``, or there are other rows than before, every answer is that of the rows as they are."""

from __future__ import annotations

import pytest

import treestore
from tests.adoption import adopting, questions, trees
from tests.adoption.old_service.service import Service

BY_HAND = {
    "a text": "UPDATE policy_nodes SET text = 'said by hand', {} WHERE node_id = 'a1x'",
    "a title": "UPDATE policy_nodes SET title = 'said by hand', {} WHERE node_id = 'a'",
    "a parent": "UPDATE policy_nodes SET parent_id = 'b', {} WHERE node_id = 'a1'",
    "a root": "UPDATE policy_nodes SET parent_id = NULL, {} WHERE node_id = 'a1'",
    "pages": "UPDATE policy_nodes SET page_start = 40, page_end = 41, {} WHERE node_id = 'a1y'",
    "an id": "UPDATE policy_nodes SET node_id = 'c1', {} WHERE node_id = 'b1'",
    "the order": "UPDATE policy_nodes SET id = nextval('policy_nodes_id_seq') WHERE node_id = 'a1'",
    "a leaf less": "DELETE FROM policy_nodes WHERE node_id = 'b1'",
    "a node more": """
        INSERT INTO policy_nodes (policy_id, version_id, node_id, parent_id, section_path, title, content_hash)
        VALUES ('hand', '1', 'c', 'a', 'said', 'said by hand', '')
    """,
    "all statuses": "UPDATE policy_nodes SET validation_status = 'flagged', {} WHERE policy_id = 'hand'",
}
"""Changes of nodes that an administrator, or a script of the service's, makes."""


@pytest.mark.parametrize("change", BY_HAND)
@pytest.mark.parametrize("stored", ["by treestore", "by the service"])
def test_what_is_changed_by_hand_is_read_at_once(change: str, stored: str) -> None:
    """In what treestore has stored, and in what it has derived; and so it is after a repair."""
    url = adopting.old_url()
    adopting.upgrade(url)
    with treestore.open_sync(url) as store:
        if stored == "by treestore":
            store.documents.store_document("hand", "1", trees.given(trees.policy()))
        else:
            with Service(url) as service:
                service.persist("hand", "1", trees.policy())
            adopting.derive(url)
        assert len(store.documents.get_outline("hand", version_id="1")) == 7
        assert adopting.by_hand(url, BY_HAND[change].format("updated_at = timezone('utc', now())")) >= 1
        rows = "SELECT node_id, parent_id, title, text, page_start, page_end, validation_status FROM policy_nodes"
        with adopting.connect(url) as connection:
            expected = connection.execute(f"{rows} WHERE policy_id = 'hand' ORDER BY id").fetchall()
        for repair in (False, True):
            if repair:
                adopting.repair(url)
            held_now = store.documents.get_document("hand", version_id="1")
            found = [
                (one.node_id, one.parent_id, one.title, one.text, one.page_start, one.page_end, one.validation_status)
                for one in held_now.nodes
            ]
            assert sorted(found, key=str) == sorted(expected, key=str)
            with treestore.open_sync("memory://") as model:
                model.documents.store_document("hand", "1", held_now.nodes)
                asked = questions.about_tree("hand", "1", trees.policy())
                for question in asked:
                    if question.verb != "get_document":  # the version's columns are another's
                        assert questions.told(lambda q=question: q.of(store)) == questions.told(lambda q=question: q.of(model))  # type: ignore[misc]
                assert model.versions.get("hand", "1").tree_hash == held_now.version.tree_hash
        assert store.check().problems == []
