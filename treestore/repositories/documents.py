"""Documents: storing whole trees, reading them by node, amending single nodes, deleting.

All verbs raise InvalidInput for arguments that break a rule (before anything is asked or written) and NotFound for a policy,
version or node that does not exist or was deleted. Reads take ``version_id``; without it they read the version in effect
now, or the latest where none is in effect yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, Never

import msgspec
from msgspec import UNSET, UnsetType

from treestore.errors import Conflict, Corrupted, InvalidInput, NotFound
from treestore.operations import (
    AmendNodes,
    Ancestors,
    Children,
    DropVersion,
    Get,
    GetNodes,
    GetVersion,
    ListDocuments,
    OnPages,
    PageTexts,
    Put,
    ReplaceVersion,
    Scan,
    Subtree,
    VersionRef,
    WriteGroup,
)
from treestore.records import (
    DeleteResult,
    Document,
    DocumentSummary,
    Envelope,
    Node,
    Outline,
    PageText,
    StoreResult,
    ValidationStatus,
    Version,
)
from treestore.repositories import amendment, columns, facts
from treestore.repositories.plan import D, Plan, ask, ask_all, take_turn, tell, verb
from treestore.repositories.search import Search
from treestore.search.postings import Packed, pack
from treestore.trees import content, rules, timeline
from treestore.trees.derive import derive
from treestore.trees.given import check_pages

_SLICE = 2048  # records freed between two pauses, about a millisecond


class Documents(Search[D]):
    """Verbs on trees and their nodes."""

    # --- whole documents -------------------------------------------------------------------------------------------------

    @verb
    def store_document(
        self,
        policy_id: str,
        version_id: str,
        nodes: Iterable[Outline | Mapping[str, Any]],
        *,
        pageindex_doc_id: str = "",
        pdf_sha256: str = "",
        markdown_ptr: str = "",
        tree_json_ptr: str = "",
        source_url: str | None = None,
        effective_date: date | None = None,
        revision_date: date | None = None,
        tree_validated_by: str | None = None,
        tree_validated_at: date | None = None,
        metadata: dict[str, Any] | None = None,
        description: str = "",
        created_by: str = "",
        tags: Iterable[str] = (),
        pages: Iterable[PageText | Mapping[str, Any]] = (),
        pageindex: Envelope | None = None,
        searchable: bool = True,
    ) -> Plan[StoreResult]:
        """Store a document as one version of a policy, whole and at once, in the place of what that version held.

        ``nodes`` are records or mappings, flat (each with its ``parent_id``, siblings in the order given) or nested (children
        in ``nodes``); see :mod:`treestore.trees.derive` for the keys. ``pages`` are page texts, ``pageindex`` what
        :func:`treestore.pageindex.read` gives as ``envelope``. Without ``searchable`` no postings are made: storing is faster,
        and a search in this version raises NotSearchable.

        The answer says ``created``, ``replaced``, or ``unchanged``: equal content and columns were there, and nothing is
        written. All columns are replaced by those given: one that is left out is empty from then on, also where the content
        is equal (give again what :meth:`Versions.get` shows to keep it). Only ``effective_date=None`` keeps a known date.
        An ingestion is later than those before it of the policy, even where the clock is not. Raises Conflict only if the
        version is being changed by others without end.
        """
        given = columns.checked(
            policy_id,
            version_id,
            {
                "pageindex_doc_id": pageindex_doc_id,
                "pdf_sha256": pdf_sha256,
                "markdown_ptr": markdown_ptr,
                "tree_json_ptr": tree_json_ptr,
                "source_url": source_url,
                "effective_date": effective_date,
                "revision_date": revision_date,
                "tree_validated_by": tree_validated_by,
                "tree_validated_at": tree_validated_at,
                "metadata": metadata,
                "description": description,
                "created_by": created_by,
                "tags": tags,
                "pageindex": pageindex,
                "searchable": searchable,
            },
        )
        return (yield from self._store(given, nodes, pages))

    def _store(
        self,
        given: Version,
        nodes: Iterable[Outline | Mapping[str, Any]],
        pages: Iterable[PageText | Mapping[str, Any]],
    ) -> Plan[StoreResult]:
        derived = yield from derive(given.policy_id, given.version_id, nodes)
        kept_pages = check_pages(pages)
        given = msgspec.structs.replace(given, **content.facts(derived, kept_pages))
        yield from take_turn(given.policy_id)
        packed: Packed | None = None
        for _ in range(facts.ATTEMPTS):
            before, ingestions = yield from ask_all(
                Get(Version, (given.policy_id, given.version_id)),
                Scan(Version, (given.policy_id,), index="ingested", reverse=True, limit=1),
            )
            live = before is not None and before.deleted_at is None
            same_tree = before is not None and live and before.tree_hash == given.tree_hash
            write: Put | ReplaceVersion | None = None
            if before is not None and same_tree and before.analyzer == given.analyzer:
                given = msgspec.structs.replace(given, term_count=before.term_count)
                if not facts.same(given, before):
                    write = Put(facts.described(given, before, self._clock()))
            else:
                if given.analyzer and packed is None:
                    packed = yield from pack(derived)
                given = msgspec.structs.replace(given, term_count=packed.term_count if packed else 0)
                if before is not None and same_tree:
                    row = facts.described(given, before, self._clock())
                else:
                    row = facts.ingested(given, before, facts.after_all(ingestions, self._clock()))
                write = ReplaceVersion(row, derived, kept_pages, packed.segments if packed else ())
            if write is not None:
                expects = facts.as_read(given.policy_id, given.version_id, before)
                try:
                    yield from tell(WriteGroup((write,), (expects,)))
                except Conflict:
                    continue
            yield from _let_go(derived)
            return StoreResult(
                outcome="unchanged" if write is None else "replaced" if live else "created",
                policy_id=given.policy_id,
                version_id=given.version_id,
                node_count=given.node_count,
                page_count=given.page_count,
                tree_hash=given.tree_hash,
            )
        raise facts.contended(given.policy_id, given.version_id)

    @verb
    def get_document(self, policy_id: str, *, version_id: str | None = None) -> Plan[Document]:
        """A version with all its nodes in document order and its page texts in the order given."""
        ref = self._ref(policy_id, version_id)
        version, nodes, pages = yield from ask_all(
            GetVersion(policy_id, ref), Subtree(Node, policy_id, ref), PageTexts(policy_id, ref)
        )
        if len(nodes) != version.node_count or len(pages) != version.page_count:
            found = f"{len(nodes)} nodes and {len(pages)} pages are there, of {version.node_count} and {version.page_count}"
            raise Corrupted(f"policy {policy_id!r} version {version.version_id!r}: {found}")
        return Document(version=version, nodes=nodes, pages=pages)

    @verb
    def list_documents(self, *, after: str | None = None, limit: int | None = None) -> Plan[list[DocumentSummary]]:
        """The policies that have a version, by policy id in code point order; the first ``limit`` ones after ``after``."""
        if after is not None:
            rules.check_id(after, "after", rules.POLICY_ID_LENGTH)
        checked = None if limit is None else rules.check_limit(limit)
        return (yield from ask(ListDocuments(self._clock(), after, checked)))

    @verb
    def delete_version(self, policy_id: str, version_id: str) -> Plan[DeleteResult]:
        """Delete one version: its nodes and page texts go, its row stays as a tombstone. NotFound if it was deleted before."""
        rules.check_version_id(version_id)
        return (yield from self._delete(policy_id, version_id))

    @verb
    def delete_document(self, policy_id: str) -> Plan[DeleteResult]:
        """Delete all versions of a policy at once, as :meth:`delete_version` does. NotFound if it has none left."""
        return (yield from self._delete(policy_id, None))

    def _delete(self, policy_id: str, version_id: str | None) -> Plan[DeleteResult]:
        rules.check_policy_id(policy_id)
        yield from take_turn(policy_id)
        for _ in range(facts.ATTEMPTS):
            versions = yield from ask(Scan(Version, (policy_id,), index="ingested"))
            if version_id is None:
                live = [version for version in versions if version.deleted_at is None]
                doomed = sorted(live, key=timeline.by_ingestion)
            else:
                doomed = [timeline.resolve(policy_id, versions, version_id)]
            if not doomed:
                raise timeline.gone(policy_id, versions)
            now = self._clock()
            group = WriteGroup(
                tuple(DropVersion(facts.tombstone(version, now)) for version in doomed),
                tuple(facts.unchanged_since(version) for version in doomed),
            )
            try:
                yield from tell(group)
            except Conflict:
                continue
            return DeleteResult(
                policy_id=policy_id,
                version_ids=tuple(version.version_id for version in doomed),
                node_count=sum(version.node_count for version in doomed),
            )
        raise facts.contended(policy_id, version_id)

    # --- nodes -----------------------------------------------------------------------------------------------------------

    @verb
    def get_node(self, policy_id: str, node_id: str, *, version_id: str | None = None) -> Plan[Node]:
        """One node with its text."""
        ref = self._ref(policy_id, version_id)
        found = yield from ask(GetNodes(Node, policy_id, ref, (rules.check_node_id(node_id),)))
        return found[0]

    @verb
    def get_nodes(self, policy_id: str, node_ids: Iterable[str], *, version_id: str | None = None) -> Plan[list[Node]]:
        """Nodes with their texts, in the order asked; an id asked twice is answered twice.

        One NotFound names all the nodes that are missing.
        """
        ref = self._ref(policy_id, version_id)
        return (yield from ask(GetNodes(Node, policy_id, ref, _node_ids(node_ids))))

    @verb
    def get_outlines(self, policy_id: str, node_ids: Iterable[str], *, version_id: str | None = None) -> Plan[list[Outline]]:
        """As :meth:`get_nodes`, without the texts."""
        ref = self._ref(policy_id, version_id)
        return (yield from ask(GetNodes(Outline, policy_id, ref, _node_ids(node_ids))))

    @verb
    def get_children(self, policy_id: str, parent_id: str | None = None, *, version_id: str | None = None) -> Plan[list[Node]]:
        """The children of a node, or the roots (``parent_id=None``), with their texts, in document order."""
        ref = self._ref(policy_id, version_id)
        return (yield from ask(Children(Node, policy_id, ref, _optional_node_id(parent_id, "parent_id"))))

    @verb
    def get_subtree(
        self, policy_id: str, node_id: str | None = None, max_depth: int | None = None, *, version_id: str | None = None
    ) -> Plan[list[Node]]:
        """A node and all below it with their texts, in document order; ``node_id=None``: the roots and all below them.

        ``max_depth`` is the number of levels below the node (0: the node alone) or below the roots.
        """
        ref = self._ref(policy_id, version_id)
        return (yield from ask(Subtree(Node, policy_id, ref, _optional_node_id(node_id), _levels(max_depth))))

    @verb
    def get_outline(
        self, policy_id: str, node_id: str | None = None, max_depth: int | None = None, *, version_id: str | None = None
    ) -> Plan[list[Outline]]:
        """As :meth:`get_subtree`, without the texts: the table of contents of a document, or of a part of it."""
        ref = self._ref(policy_id, version_id)
        return (yield from ask(Subtree(Outline, policy_id, ref, _optional_node_id(node_id), _levels(max_depth))))

    @verb
    def get_ancestor_path(self, policy_id: str, node_id: str, *, version_id: str | None = None) -> Plan[list[Node]]:
        """The way from the root to a node: the root first, the node itself last."""
        ref = self._ref(policy_id, version_id)
        return (yield from ask(Ancestors(Node, policy_id, ref, rules.check_node_id(node_id))))

    @verb
    def get_nodes_by_page(self, policy_id: str, page: int, *, version_id: str | None = None) -> Plan[list[Node]]:
        """The nodes that lie on a page (``page_start <= page <= page_end``) with their texts, in document order.

        Nodes without a page range lie on none. Nothing is assumed of parents and children: each is found by its own range.
        A page that no node lies on gives an empty list.
        """
        ref = self._ref(policy_id, version_id)
        rules.check_integer(page, "page")
        return (yield from ask(OnPages(Node, policy_id, ref, page, page)))

    @verb
    def get_nodes_by_pages(
        self, policy_id: str, first: int, last: int, *, version_id: str | None = None
    ) -> Plan[list[Node]]:
        """As :meth:`get_nodes_by_page`, for the pages ``first`` to ``last``, both included: the nodes that lie on any."""
        ref = self._ref(policy_id, version_id)
        if rules.check_integer(first, "first") > rules.check_integer(last, "last"):
            raise InvalidInput(f"must not be above last ({first} > {last})", field="first")
        return (yield from ask(OnPages(Node, policy_id, ref, first, last)))

    @verb
    def update_node(
        self,
        /,
        policy_id: str,
        node_id: str,
        *,
        version_id: str | None = None,
        title: str | UnsetType = UNSET,
        summary: str | UnsetType | None = UNSET,
        text: str | UnsetType | None = UNSET,
        validation_status: ValidationStatus | UnsetType = UNSET,
        metadata: dict[str, Any] | UnsetType | None = UNSET,
        **unknown: Never,
    ) -> Plan[Node]:
        """Amend a node in place and return it as it is then. ``None`` makes a summary, text or metadata absent.

        Only the fields that are given change; values equal to those stored write nothing. The hashes of the node, of its
        ancestors and of the version follow; ``updated_at`` of the node and the version tell when. The structure, and every
        other field, changes by storing the document again.
        """
        if unknown:
            rule = f"can't be amended in place; only {', '.join(amendment.FIELDS)} can"
            raise InvalidInput(rule, field=rules.shorten(next(iter(unknown))), node=node_id)
        ref = self._ref(policy_id, version_id)
        fields = {
            "title": title,
            "summary": summary,
            "text": text,
            "validation_status": validation_status,
            "metadata": metadata,
        }
        amended = amendment.checked(rules.check_node_id(node_id), fields)
        yield from take_turn(policy_id)
        for _ in range(facts.ATTEMPTS):
            result = yield from self._amend(policy_id, node_id, ref, amended)
            if result is not None:
                return result
        raise facts.contended(policy_id, version_id)

    def _amend(self, policy_id: str, node_id: str, ref: VersionRef, fields: dict[str, Any]) -> Plan[Node | None]:
        """One attempt of :meth:`update_node`; None if the version was changed meanwhile."""
        version, path = yield from ask_all(GetVersion(policy_id, ref), Ancestors(Node, policy_id, ref, node_id))
        node = msgspec.structs.replace(path[-1], updated_at=self._clock(), **fields)
        if amendment.same(node, path[-1]):
            unchanged: Node = path[-1]
            return unchanged
        exact = version.version_id
        try:
            roots, *children = yield from ask_all(
                Children(Outline, policy_id, exact),
                *[Children(Outline, policy_id, exact, above.node_id) for above in path],
            )
            nodes, hashes = amendment.rehashed([*path[:-1], node], children, roots, version.pages_hash)
            change = amendment.term_change(version, path[-1], node)
            terms = version.term_count + (amendment.growth(change) if change else 0)
            made_by = amendment.analyzer_after(version)
            row = facts.changed(version, version, self._clock(), analyzer=made_by, term_count=terms, **hashes)
            amend = AmendNodes(row, nodes, (change,) if change else ())
            yield from tell(WriteGroup((amend,), (facts.unchanged_since(version),)))
        except (Conflict, NotFound):
            return None
        return nodes[-1]

    # --- page texts ------------------------------------------------------------------------------------------------------

    @verb
    def get_page_text(self, policy_id: str, page: int, *, version_id: str | None = None) -> Plan[PageText]:
        """The kept text of one page of the source document. NotFound if none is kept for it."""
        ref = self._ref(policy_id, version_id)
        rules.check_integer(page, "page")
        version, found = yield from ask_all(GetVersion(policy_id, ref), PageTexts(policy_id, ref, page, page))
        if not found:
            raise NotFound(f"policy {policy_id!r} version {version.version_id!r} has no text of page {page}")
        text: PageText = found[0]
        return text

    @verb
    def get_page_texts(
        self, policy_id: str, first: int | None = None, last: int | None = None, *, version_id: str | None = None
    ) -> Plan[list[PageText]]:
        """The kept page texts with ``first <= page <= last`` (either may be ``None``), in the order they were given."""
        ref = self._ref(policy_id, version_id)
        for value, field in ((first, "first"), (last, "last")):
            if value is not None:
                rules.check_integer(value, field)
        if first is not None and last is not None and first > last:
            raise InvalidInput(f"must not be above last ({first} > {last})", field="first")
        return (yield from ask(PageTexts(policy_id, ref, first, last)))


def _let_go(nodes: list[Node]) -> Plan[None]:
    """Free the records of a large tree in slices: at once it takes half a microsecond for each."""
    while len(nodes) > _SLICE:
        del nodes[-_SLICE:]
        yield None


def _node_ids(node_ids: object) -> tuple[str, ...]:
    if isinstance(node_ids, str | bytes | Mapping) or not isinstance(node_ids, Iterable):
        raise InvalidInput(f"must be a list of node ids, not {rules.shown(node_ids)}", field="node_ids")
    asked: list[str] = []
    for node_id in node_ids:
        if len(asked) == rules.MAX_RESULTS:
            raise InvalidInput(f"must be at most {rules.MAX_RESULTS} ids", field="node_ids")
        asked.append(rules.check_node_id(node_id, f"node_ids[{len(asked)}]"))
    return tuple(asked)


def _optional_node_id(node_id: str | None, field: str = "node_id") -> str | None:
    return None if node_id is None else rules.check_node_id(node_id, field)


def _levels(max_depth: int | None) -> int | None:
    return None if max_depth is None else rules.check_integer(max_depth, "max_depth")
