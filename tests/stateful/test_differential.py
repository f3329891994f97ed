"""All kinds of stores beside each other: the native one, PostgreSQL by both faces, and the one in memory, which says what is
right.

They get the same random operations, and after every step the results, their order, scores (to the bit), hashes, and the errors
with their messages are compared. Beside the machine's small trees there are real ones (tests/data/pageindex), strings that
databases trip over, and input that is refused.

``DIFFERENTIAL_EXAMPLES=2000 pytest tests/stateful/test_differential.py --hypothesis-seed=N`` runs for longer (an example takes
about a second), with other choices.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule, run_state_machine_as_test

import treestore
from tests.clock import START
from tests.contract.samples import ALL_PLANES
from tests.postgres import databases
from tests.stateful.test_machine import NODES, POLICIES, VERSIONS, StoreMachine, answered
from tests.stores import KINDS, SyncStore
from treestore import NotFound, Settings, pageindex

EXAMPLES = int(os.environ.get("DIFFERENTIAL_EXAMPLES", "20"))
STEPS = 40

FILES = sorted((Path(__file__).parent.parent / "data" / "pageindex").glob("*.json"))
REAL = {file.name: pageindex.read(file) for file in FILES}
WORKSPACES = [name for name, read in REAL.items() if read.pages]

HOSTILE = [
    "",
    " ",
    "a ",
    "A",
    "a",
    "_",
    "%",
    "é",
    "e\u0301",
    "\\",
    "\\n",
    "\\.",
    "\\N",
    "'",
    "''",
    '"',
    "';--",
    "$1",
    "%s",
    "{}",
    "{NULL}",
    "NULL",
    "\t",
    "\r\n",
    "\x01\x7f\x85\ufeff\ufffe\uffff",
    "\u2028",
    "\U0010ffff",
    "z" * 40,
    ALL_PLANES,
]
"""Strings that quoting, COPY's text form, collations and normal forms could change or put in another order."""

HOSTILE_IDS = [text for text in HOSTILE if text]
SCALARS = st.sampled_from(
    [None, True, False, 0, -1, 1, 1.0, -0.0, 1e22, 1e308, 5e-324, 0.1, 2**63, 2**64 - 1, -(2**63), *HOSTILE]
)
HOSTILE_JSON = st.none() | st.dictionaries(
    st.sampled_from(HOSTILE),
    SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.sampled_from(HOSTILE), SCALARS),
    max_size=4,
)
PAGES = st.sampled_from([0, 1, 2, 9, 2**31 - 1])
MOMENTS = st.sampled_from(
    [
        START,
        START.replace(tzinfo=None),
        START.astimezone(timezone(timedelta(hours=5, minutes=45))),
        START - timedelta(microseconds=1),
        date(1, 1, 2),
        date(2026, 3, 1),
        date(9999, 12, 31),
        datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999998, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ]
)
WORDS = [
    "income",
    "the company",
    "revenue 2023",
    "attention residual",
    "M54.5",
    "10-K",
    "net",
    "fy25",
    "fy2",
    "§",
    "q1",
    "model",
]
REAL_VERSIONS = st.sampled_from(["1", "2"])


@st.composite
def hostile_trees(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Nested nodes of which everything is odd."""
    ids = draw(st.lists(st.sampled_from(HOSTILE_IDS), unique=True, max_size=8))
    roots: list[dict[str, Any]] = []
    made: list[dict[str, Any]] = []
    for at, name in enumerate(ids):
        pages = sorted([draw(PAGES), draw(PAGES)])
        node: dict[str, Any] = {"node_id": name, "title": draw(st.sampled_from(HOSTILE)), "nodes": []}
        node |= draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "text": st.none() | st.sampled_from(HOSTILE),
                    "summary": st.none() | st.sampled_from(HOSTILE),
                    "prefix_summary": st.none() | st.sampled_from(HOSTILE),
                    "metadata": HOSTILE_JSON,
                    "extra": HOSTILE_JSON.filter(lambda extra: extra is None or "" not in extra),
                    "page_start": st.just(pages[0]),
                    "page_index": PAGES,
                    "line_num": PAGES,
                    "section_path": st.sampled_from([*HOSTILE_IDS, "5" * 500]),
                    "validation_status": st.sampled_from(["pending", "approved", "flagged"]),
                },
            )
        )
        if "page_start" in node:
            node["page_end"] = pages[1]
        parent = draw(st.integers(0, at))
        (made[parent - 1]["nodes"] if parent else roots).append(node)
        made.append(node)
    return roots


def _looped() -> list[dict[str, Any]]:
    return [{"node_id": "a", "parent_id": "b", "title": "a"}, {"node_id": "b", "parent_id": "a", "title": "b"}]


def _stored(*nodes: dict[str, Any], policy_id: Any = "p", version_id: Any = "1", **more: Any) -> Callable[[Any], Any]:
    return lambda store: store.documents.store_document(policy_id, version_id, list(nodes), **more)


def _node(**fields: Any) -> dict[str, Any]:
    return {"node_id": "a", "title": "a", **fields}


BAD: list[Callable[[Any], Any]] = [
    _stored(policy_id=""),
    _stored(policy_id="p" * 101),
    _stored(policy_id="é" * 100),  # allowed
    _stored(policy_id=7),
    _stored(policy_id="a\0"),
    _stored(version_id="v" * 51),
    _stored(version_id="\ud800"),
    _stored(*_looped()),
    _stored(_node(), _node()),
    _stored(_node(parent_id="nobody")),
    _stored(_node(title=None)),
    _stored(_node(title="NUL \0")),
    _stored(_node(text="\udfff")),
    _stored(_node(page_start=2, page_end=1)),
    _stored(_node(page_start=2**31, page_end=2**31)),
    _stored(_node(page_start=-1, page_end=1)),
    _stored(_node(metadata={"a": 2**64})),
    _stored(_node(metadata={"a": float("nan")})),
    _stored(_node(metadata={"a": "\0"})),
    _stored(_node(metadata=[])),
    _stored(_node(section_path="p" * 501)),
    _stored(_node(validation_status="perhaps")),
    _stored(effective_date=datetime.max.replace(tzinfo=UTC)),
    _stored(effective_date="2026-01-01"),
    _stored(pages=[{"page": 1, "content": "a"}, {"page": 1, "content": "b"}]),
    _stored(pages=[{"page": -1, "content": "a"}]),
    _stored(pdf_sha256="0" * 65),
    lambda store: store.documents.get_node("p", ""),
    lambda store: store.documents.get_nodes("p", ["n1", "nobody", "n2", "no one"]),
    lambda store: store.documents.get_nodes("p", []),
    lambda store: store.documents.get_nodes("p", "n1"),
    lambda store: store.documents.get_subtree("p", "n1", -1),
    lambda store: store.documents.get_subtree("p", "n1", 2**40),
    lambda store: store.documents.get_children("p", "nobody"),
    lambda store: store.documents.get_children("nobody", "n1"),
    lambda store: store.documents.get_node("p", "n1", version_id="nothing"),
    lambda store: store.documents.get_nodes_by_page("p", 2**31),
    lambda store: store.documents.get_nodes_by_pages("p", 2, 1),
    lambda store: store.documents.get_page_text("p", 77),
    lambda store: store.documents.search_nodes("p", "x", limit=0),
    lambda store: store.documents.search_nodes("p", "  "),
    lambda store: store.documents.search_nodes("p", "a\0"),
    lambda store: store.documents.search_nodes("nobody", "x"),
    lambda store: store.documents.search_documents("", 1),
    lambda store: store.documents.list_documents(after="\0"),
    lambda store: store.documents.list_documents(limit=-1),
    lambda store: store.documents.update_node("p", "nobody", title="x"),
    lambda store: store.documents.update_node("p", "n1"),
    lambda store: store.documents.update_node("p", "n1", title="\0"),
    lambda store: store.documents.delete_version("p", "nothing"),
    lambda store: store.documents.delete_document("nobody"),
    lambda store: store.versions.get("p", "nothing"),
    lambda store: store.versions.latest("nobody"),
    lambda store: store.versions.get_version_as_of("p", "yesterday"),
    lambda store: store.versions.get_version_as_of("p", datetime.max),
    lambda store: store.versions.get_version_as_of("p", datetime.min, datetime.min),
    lambda store: store.versions.diff("p", "1", "nothing"),
    lambda store: store.versions.set_effective_date("p", "1", None),
]


class DifferentialMachine(StoreMachine):
    """PostgreSQL by both faces and the native store, beside the one in memory."""

    def opened(self) -> list[SyncStore]:
        if not hasattr(self, "folder"):
            self.folder = tempfile.TemporaryDirectory(prefix="treestore-machine-")
            self.urls = [databases.new_url(), databases.new_url(), f"btree:///{self.folder.name}/store"]
        faces = [KINDS["memory"], KINDS["memory-async"], KINDS["memory"]]
        return [face.open(url, self.clock, Settings()) for face, url in zip(faces, self.urls, strict=True)]

    def teardown(self) -> None:
        self.check()
        super().teardown()
        databases.take_back()
        self.folder.cleanup()

    @rule()
    def reopen(self) -> None:
        self.open_again()
        self.check()

    # --- odd trees, refused input ----------------------------------------------------------------------------------------

    @rule(
        policy_id=POLICIES | st.sampled_from(HOSTILE_IDS),
        version_id=VERSIONS | st.sampled_from(HOSTILE_IDS),
        nodes=hostile_trees(),
        more=st.fixed_dictionaries(
            {},
            optional={
                "metadata": HOSTILE_JSON,
                "description": st.sampled_from(HOSTILE),
                "created_by": st.sampled_from(HOSTILE),
                "tags": st.lists(st.sampled_from(HOSTILE), max_size=3),
                "source_url": st.none() | st.sampled_from(HOSTILE),
                "effective_date": MOMENTS,
                "revision_date": st.none() | MOMENTS,
                "tree_validated_at": st.none() | MOMENTS,
                "tree_validated_by": st.none() | st.sampled_from(HOSTILE),
                "pages": st.lists(
                    st.fixed_dictionaries(
                        {"page": PAGES, "content": st.sampled_from([*HOSTILE, "NUL \0 inside"]), "extra": HOSTILE_JSON}
                    ),
                    unique_by=lambda page: page["page"],
                    max_size=3,
                ),
            },
        ),
    )
    def store_what_is_odd(self, policy_id: str, version_id: str, nodes: Any, more: dict[str, Any]) -> None:
        self.both(lambda store: store.documents.store_document(policy_id, version_id, nodes, **more))
        self.both(lambda store: store.documents.get_document(policy_id, version_id=version_id))

    @rule(call=st.sampled_from(BAD))
    def be_refused(self, call: Callable[[Any], Any]) -> None:
        self.both(call)

    @rule(
        policy_id=POLICIES | st.sampled_from(HOSTILE_IDS),
        node_id=NODES | st.sampled_from(HOSTILE_IDS),
        text=st.sampled_from(HOSTILE),
    )
    def ask_for_what_is_odd(self, policy_id: str, node_id: str, text: str) -> None:
        self.both(lambda store: store.documents.get_node(policy_id, node_id))
        self.both(lambda store: store.documents.get_children(policy_id, node_id))
        self.both(lambda store: store.documents.search_nodes(policy_id, text))
        self.both(lambda store: store.documents.list_documents(after=text or None))

    @rule(
        policy_id=POLICIES,
        node_id=NODES,
        fields=st.fixed_dictionaries({"title": st.sampled_from(HOSTILE), "metadata": HOSTILE_JSON}),
    )
    def amend_oddly(self, policy_id: str, node_id: str, fields: dict[str, Any]) -> None:
        self.both(lambda store: store.documents.update_node(policy_id, node_id, **fields))

    @rule(policy_id=POLICIES, version_id=VERSIONS, at=MOMENTS, known_at=st.none() | MOMENTS)
    def ask_at_odd_times(self, policy_id: str, version_id: str, at: Any, known_at: Any) -> None:
        self.both(lambda store: store.versions.get_version_as_of(policy_id, at, known_at))
        self.both(lambda store: store.versions.temporal_lookup(policy_id, at, known_at))
        self.both(lambda store: store.versions.set_effective_date(policy_id, version_id, at))
        self.both(lambda store: store.versions.get(policy_id, version_id))

    @rule(policy_id=POLICIES, version_id=VERSIONS)
    def delete_and_restore(self, policy_id: str, version_id: str) -> None:
        """What was deleted can be stored again, under the same id."""
        held = answered(lambda: self.model.documents.get_document(policy_id, version_id=version_id))
        self.both(lambda store: store.documents.delete_version(policy_id, version_id))
        self.both(lambda store: store.versions.list(policy_id, include_deleted=True))
        if isinstance(held, treestore.Document):
            self.both(lambda store: store.documents.store_document(policy_id, version_id, held.nodes, pages=held.pages))

    # --- real trees ------------------------------------------------------------------------------------------------------

    @initialize(name=st.sampled_from(sorted(REAL)))
    def begin_with_a_real_document(self, name: str) -> None:
        self.store_a_real_document(name, "1")

    @rule(name=st.sampled_from(sorted(REAL)), version_id=REAL_VERSIONS)
    def store_a_real_document(self, name: str, version_id: str) -> None:
        read = REAL[name]
        more = {"pages": read.pages, "pageindex": read.envelope, "pageindex_doc_id": read.doc_id}
        self.both(lambda store: store.documents.store_document("real", version_id, read.nodes, **more))
        self.both(lambda store: pageindex.dumps(store.documents.get_document("real", version_id=version_id)))

    @rule(version_id=REAL_VERSIONS, at=st.integers(0, 200), levels=st.integers(0, 3))
    def read_a_real_document(self, version_id: str, at: int, levels: int) -> None:
        node = self._real(version_id, at)
        ref = {"version_id": version_id}
        self.both(lambda store: store.documents.get_subtree("real", node, levels, **ref))
        self.both(lambda store: store.documents.get_subtree("real", node, **ref))
        self.both(lambda store: store.documents.get_children("real", node, **ref))
        self.both(lambda store: store.documents.get_ancestor_path("real", node, **ref))
        self.both(lambda store: store.documents.get_nodes_by_pages("real", at, at + levels, **ref))
        self.both(lambda store: store.documents.get_page_texts("real", at, at + levels, **ref))

    @rule(version_id=REAL_VERSIONS, query=st.sampled_from(WORDS), at=st.integers(0, 200), limit=st.sampled_from([1, 5, 50]))
    def search_a_real_document(self, version_id: str, query: str, at: int, limit: int) -> None:
        self.both(lambda store: store.documents.search_nodes("real", query, limit=limit, version_id=version_id))
        self.both(lambda store: store.documents.search_documents(query, limit))
        held = answered(lambda: self.model.documents.get_outline("real", version_id=version_id))
        if isinstance(held, list):
            title = held[at % len(held)].title
            self.both(lambda store: store.documents.search_nodes("real", title or "x", limit=limit, version_id=version_id))

    @rule(
        version_id=REAL_VERSIONS,
        at=st.integers(0, 200),
        text=st.sampled_from([*WORDS, *HOSTILE]),
        field=st.sampled_from(["title", "text", "summary"]),
    )
    def amend_a_real_document(self, version_id: str, at: int, text: str, field: str) -> None:
        node = self._real(version_id, at)
        self.both(lambda store: store.documents.update_node("real", node, version_id=version_id, **{field: text}))

    @rule(cut=st.integers(0, 200), text=st.sampled_from(WORDS))
    def revise_a_real_document(self, cut: int, text: str) -> None:
        """Version 2 is version 1 without a node (and what is below it), and with another text in one."""
        try:
            held = self.model.documents.get_document("real", version_id="1")
        except NotFound:
            return
        gone = held.nodes[cut % len(held.nodes)]
        kept = [node for node in held.nodes if not gone.ordinal <= node.ordinal <= gone.last_ordinal]
        kept = [msgspec.structs.replace(node, text=text) if node.ordinal == cut // 2 else node for node in kept]
        self.both(lambda store: store.documents.store_document("real", "2", kept, pages=held.pages))

    @rule()
    def compare_real_documents(self) -> None:
        self.both(lambda store: store.versions.diff("real", "1", "2"))
        self.both(lambda store: store.versions.diff("real", "2", "1"))

    def _real(self, version_id: str, at: int) -> str:
        held = answered(lambda: self.model.documents.get_outline("real", version_id=version_id))
        return held[at % len(held)].node_id if isinstance(held, list) and held else "nobody"

    @invariant()
    def real_documents_are_equal(self) -> None:
        self.both(lambda store: store.versions.list("real", include_deleted=True))
        self.both(lambda store: store.documents.list_documents())


def test_every_store_answers_as_the_one_in_memory() -> None:
    run_state_machine_as_test(
        DifferentialMachine,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
