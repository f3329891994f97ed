"""Keyword search: in one version, in all documents, and making postings anew after an update of the analyzer."""

from __future__ import annotations

from treestore.errors import Conflict, NotFound
from treestore.operations import (
    GetVersion,
    InEffect,
    ListDocuments,
    Match,
    MatchAll,
    PageTexts,
    ReplaceVersion,
    Scan,
    Subtree,
    VersionRef,
    WriteGroup,
)
from treestore.records import Node, SearchHit, Version
from treestore.repositories import facts
from treestore.repositories.plan import D, Plan, Repository, ask, ask_all, take_turn, tell, verb
from treestore.search import analyzer
from treestore.search.postings import pack
from treestore.search.query import is_stale, parse
from treestore.trees import rules


class Search(Repository[D]):
    """Verbs that find nodes by what they say; part of :class:`~treestore.repositories.documents.Documents`."""

    @verb
    def search_nodes(
        self, policy_id: str, query: str, *, limit: int = 10, version_id: str | None = None
    ) -> Plan[list[SearchHit]]:
        """The nodes that fit a query best, at most ``limit`` (1 to 1,000,000): best first, of equal scores in document order.

        A query is words: a node is found by any of them, in its title, summaries or text, in any English inflection; for codes
        see :mod:`treestore.search.query`. Quotes and operators mean nothing. An empty query, or one of nothing but stop words,
        finds nothing. Scores are BM25 (:mod:`treestore.search.ranking`), over the nodes of the version.

        Raises NotSearchable for a version stored with ``searchable=False`` or by another version of the analyzer, and
        InvalidInput for a query of more than 20,000 characters, or 1,000 different words and parts of words.
        """
        ref = self._ref(policy_id, version_id)
        return (yield from ask(Match(policy_id, ref, parse(query), rules.check_limit(limit))))

    @verb
    def search_documents(self, query: str, limit: int = 10) -> Plan[list[SearchHit]]:
        """As :meth:`search_nodes`, in all policies at once: in the version of each that is in effect now, or the latest.

        All their nodes together are what scores rest on; of equal scores by policy id, then in document order. Versions that
        were stored with ``searchable=False`` are passed over. The time it takes grows with the number of policies.
        """
        return (yield from ask(MatchAll(self._clock(), parse(query), rules.check_limit(limit))))

    @verb
    def reindex(self) -> Plan[int]:
        """Make the postings anew of all versions whose postings another version of the analyzer made; returns how many.

        To be called after an update of treestore that says so when it opens a store. What else is stored stays as it is.
        Raises Conflict, after all others were done, if a version is being changed elsewhere without end.
        """
        count = 0
        refused: Conflict | None = None
        for summary in (yield from ask(ListDocuments(self._clock()))):
            yield from take_turn(summary.policy_id)
            for version in (yield from ask(Scan(Version, (summary.policy_id,)))):
                if is_stale(version):
                    try:
                        count += yield from self._reindex(version.policy_id, version.version_id)
                    except Conflict as error:
                        refused = error
        if refused is not None:
            raise refused
        return count

    def _reindex(self, policy_id: str, version_id: str) -> Plan[int]:
        """Make the postings of one version anew, unless it was deleted or stored anew meanwhile."""
        for _ in range(facts.ATTEMPTS):
            try:
                version, nodes, pages = yield from ask_all(
                    GetVersion(policy_id, version_id), Subtree(Node, policy_id, version_id), PageTexts(policy_id, version_id)
                )
            except NotFound:
                return 0
            if not is_stale(version):
                return 0
            packed = yield from pack(nodes)
            row = facts.changed(version, version, self._clock(), analyzer=analyzer.VERSION, term_count=packed.term_count)
            write = ReplaceVersion(row, nodes, pages, packed.segments)
            try:
                yield from tell(WriteGroup((write,), (facts.unchanged_since(version),)))
            except Conflict:
                continue
            return 1
        raise facts.contended(policy_id, version_id)

    def _ref(self, policy_id: str, version_id: str | None) -> VersionRef:
        """The version operand that a verb's arguments mean, both checked."""
        rules.check_policy_id(policy_id)
        return InEffect(self._clock(), or_latest=True) if version_id is None else rules.check_version_id(version_id)
