"""The old reasoning-service's way with its policies: synchronous SQLAlchemy, naive UTC, one Session for each call.

It knows its two tables and nothing of who else works on them. After each of its reads it holds what it found against the rules
that its code has always relied on (:mod:`tests.adoption.old_service.rules`); an AssertionError there means that somebody broke
its data.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal, Self

from sqlalchemy import create_engine, delete, func, select, update
from sqlalchemy.orm import Session, sessionmaker

from tests.adoption.old_service import rules
from tests.adoption.old_service.models import PolicyNode, PolicyValidationIssue, PolicyVersion, ReasoningOutput, now
from tests.adoption.old_service.schema import driver_url

Tree = Sequence[Mapping[str, Any]]
"""Nested nodes as PageIndex gives them, each with its children in ``nodes``; ``node_id`` may be missing."""

Status = Literal["pending", "approved", "flagged"]

KEPT = ("page_index", "page_start", "page_end", "summary", "text")
"""What of a node goes into the column of the same name as it is."""

APPLICATION_NAME = "reasoning-service"
"""What the server shows of the service's connections."""

SEPARATOR = " > "
PATH_LENGTH = 500


class Service:
    """One process of the service. ``breadth_first``: it inserts a tree level by level, as some of its releases did."""

    def __init__(self, url: str, *, breadth_first: bool = False) -> None:
        self.breadth_first = breadth_first
        self.engine = create_engine(
            driver_url(url),
            pool_size=4,
            max_overflow=20,
            connect_args={"application_name": APPLICATION_NAME, "options": "-c timezone=UTC"},
        )
        self.sessions = sessionmaker(self.engine)
        self._written: dict[tuple[str, str, datetime], list[rules.Place]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.engine.dispose()

    # --- writing ---------------------------------------------------------------------------------------------------------

    def persist(
        self,
        policy_id: str,
        version_id: str,
        tree: Tree,
        *,
        before_commit: Callable[[], None] = lambda: None,
        **columns: Any,
    ) -> datetime:
        """A new version with its tree; the moment of ingestion. Raises IntegrityError if it is there."""
        ingested_at = now()
        with self.sessions.begin() as session:
            given = _columns(policy_id, version_id) | columns
            session.add(PolicyVersion(policy_id=policy_id, version_id=version_id, ingested_at=ingested_at, **given))
            session.flush()
            self._insert(session, policy_id, version_id, tree, ingested_at)
            before_commit()
        return ingested_at

    def reingest(
        self,
        policy_id: str,
        version_id: str,
        tree: Tree,
        *,
        before_commit: Callable[[], None] = lambda: None,
        nodes_first: bool = False,
        **columns: Any,
    ) -> datetime:
        """The version's row is updated, its nodes are deleted and inserted again; the moment of ingestion.

        ``nodes_first``: as some of its releases did, the row is updated last.
        """
        ingested_at = now()
        with self.sessions.begin() as session:
            version = session.get_one(PolicyVersion, (policy_id, version_id))
            if not nodes_first:
                _update(session, version, ingested_at, columns)
            gone = delete(PolicyNode).where(PolicyNode.policy_id == policy_id, PolicyNode.version_id == version_id)
            session.execute(gone)
            self._insert(session, policy_id, version_id, tree, ingested_at)
            if nodes_first:
                _update(session, version, ingested_at, columns)
            before_commit()
        return ingested_at

    def reingest_by_cascade(self, policy_id: str, version_id: str, tree: Tree, **columns: Any) -> datetime:
        """As :meth:`reingest`, by the Session's own means: it loads the old nodes and deletes them one by one."""
        ingested_at = now()
        with self.sessions.begin() as session:
            version = session.get_one(PolicyVersion, (policy_id, version_id))
            _update(session, version, ingested_at, columns)
            version.nodes.clear()
            session.flush()
            self._insert(session, policy_id, version_id, tree, ingested_at)
        return ingested_at

    def set_status(
        self,
        policy_id: str,
        version_id: str,
        node_id: str,
        status: Status,
        before_commit: Callable[[], None] = lambda: None,
    ) -> int:
        """Say what a reviewer thinks of a node; the number of rows that are it."""
        with self.sessions.begin() as session:
            changed = (
                update(PolicyNode)
                .where(PolicyNode.policy_id == policy_id, PolicyNode.version_id == version_id, PolicyNode.node_id == node_id)
                .values(validation_status=status)
                .returning(PolicyNode.id)
            )
            count = len(session.execute(changed).all())
            before_commit()
        return count

    def cite(self, policy_id: str, version_id: str, case_id: str = "case", status: str = "met") -> None:
        """Record a conclusion that was drawn from a version, and an issue with it."""
        with self.sessions.begin() as session:
            output = ReasoningOutput(
                case_id=case_id, criterion_id="c1", policy_id=policy_id, version_id=version_id, status=status
            )
            session.add(output)
            session.flush()
            issue = "the second page is missing"
            session.add(PolicyValidationIssue(policy_id=policy_id, version_id=version_id, issue=issue, output_id=output.id))

    def delete(self, policy_id: str, version_id: str) -> None:
        """Take a version away with its nodes. Raises IntegrityError if anything cites it."""
        with self.sessions.begin() as session:
            session.delete(session.get_one(PolicyVersion, (policy_id, version_id)))

    def _insert(self, session: Session, policy_id: str, version_id: str, tree: Tree, ingested_at: datetime) -> None:
        flat = flattened(policy_id, version_id, tree, self.breadth_first)
        session.add_all(flat)
        session.flush()
        self._written[policy_id, version_id, ingested_at] = [rules.place(node) for node in flat]

    # --- reading ---------------------------------------------------------------------------------------------------------

    def versions(self, policy_id: str) -> list[PolicyVersion]:
        """The versions of a policy, the newest ingested first."""
        with self._reading() as session:
            of_policy = select(PolicyVersion).where(PolicyVersion.policy_id == policy_id)
            found = list(session.scalars(of_policy.order_by(PolicyVersion.ingested_at.desc())))
            for version in found:
                self._check(session, version)
            return found

    def version(self, policy_id: str, version_id: str) -> PolicyVersion:
        with self._reading() as session:
            found = session.get_one(PolicyVersion, (policy_id, version_id))
            self._check(session, found)
            return found

    def nodes(self, policy_id: str, version_id: str) -> list[PolicyNode]:
        """All nodes of a version, in the order of ``id``."""
        return self._find(policy_id, version_id)

    def roots(self, policy_id: str, version_id: str) -> list[PolicyNode]:
        return self._find(policy_id, version_id, PolicyNode.parent_id.is_(None))

    def children(self, policy_id: str, version_id: str, node_id: str) -> list[PolicyNode]:
        return self._find(policy_id, version_id, PolicyNode.parent_id == node_id)

    def node(self, policy_id: str, version_id: str, node_id: str) -> PolicyNode | None:
        """The node of this id, the first of several."""
        return next(iter(self._find(policy_id, version_id, PolicyNode.node_id == node_id)), None)

    def by_path(self, policy_id: str, version_id: str, section_path: str) -> list[PolicyNode]:
        return self._find(policy_id, version_id, PolicyNode.section_path == section_path)

    def on_page(self, policy_id: str, version_id: str, page: int) -> list[PolicyNode]:
        return self._find(policy_id, version_id, PolicyNode.page_start <= page, PolicyNode.page_end >= page)

    def outputs(self, policy_id: str, version_id: str) -> list[tuple[str, datetime]]:
        """The cases that cite a version, each with when that was ingested, by way of the foreign key."""
        with self._reading() as session:
            cited = (
                select(ReasoningOutput.case_id, PolicyVersion.ingested_at)
                .join(ReasoningOutput.version)
                .where(ReasoningOutput.policy_id == policy_id, ReasoningOutput.version_id == version_id)
                .order_by(ReasoningOutput.id)
            )
            return [(case_id, ingested_at) for case_id, ingested_at in session.execute(cited)]

    def count(self) -> tuple[int, int]:
        """How many versions there are, and nodes. Every node's version is there."""
        with self._reading() as session:
            versions = session.scalar(select(func.count()).select_from(PolicyVersion))
            nodes = session.scalar(select(func.count()).select_from(PolicyNode))
            owned = session.scalar(select(func.count()).select_from(PolicyNode).join(PolicyNode.version))
            assert nodes == owned
            return versions or 0, nodes or 0

    def _reading(self) -> Session:
        return Session(self.engine.execution_options(isolation_level="REPEATABLE READ"), expire_on_commit=False)

    def _find(self, policy_id: str, version_id: str, *conditions: Any) -> list[PolicyNode]:
        owner = (PolicyNode.policy_id == policy_id, PolicyNode.version_id == version_id)
        with self._reading() as session:
            found = list(session.scalars(select(PolicyNode).where(*owner, *conditions).order_by(PolicyNode.id)))
            version = session.get(PolicyVersion, (policy_id, version_id))
            assert version is not None or not found, "a node's version is there"
            if version is not None:
                self._check(session, version)
            return found

    def _check(self, session: Session, version: PolicyVersion) -> None:
        """The rules, for all that is there of a version at the session's moment."""
        owner = (PolicyNode.policy_id == version.policy_id, PolicyNode.version_id == version.version_id)
        nodes = list(session.scalars(select(PolicyNode).where(*owner).order_by(PolicyNode.id)))
        rules.check(nodes)
        written = self._written.get((version.policy_id, version.version_id, version.ingested_at))
        if nodes and written is not None:
            assert [rules.place(node) for node in nodes] == written, "what this process ingested then is what is there"


def _columns(policy_id: str, version_id: str) -> dict[str, Any]:
    name = f"{policy_id}/{version_id}"
    return {
        "pageindex_doc_id": f"pi-{sha256(name.encode()).hexdigest()[:16]}",
        "pdf_sha256": sha256(name.encode()).hexdigest(),
        "markdown_ptr": f"s3://policies/{name}.md",
        "tree_json_ptr": f"s3://policies/{name}.json",
    }


def _update(session: Session, version: PolicyVersion, ingested_at: datetime, columns: Mapping[str, Any]) -> None:
    version.ingested_at = ingested_at
    for name, value in columns.items():
        setattr(version, name, value)
    session.flush()


def flattened(policy_id: str, version_id: str, tree: Tree, breadth_first: bool = False) -> list[PolicyNode]:
    """A tree's nodes as rows, each behind the one that it lies in."""
    rows: list[PolicyNode] = []
    roots: list[tuple[Mapping[str, Any], str | None, str]] = [(node, None, node["title"]) for node in tree]
    waiting = deque(roots)
    while waiting:
        node, parent_id, path = waiting.popleft()
        node_id = node.get("node_id") or ""
        rows.append(
            PolicyNode(
                policy_id=policy_id,
                version_id=version_id,
                node_id=node_id,
                parent_id=parent_id,
                section_path=path[:PATH_LENGTH],
                title=node["title"],
                content_hash=rules.content_hash(node.get("text"), node.get("summary"), node["title"]),
                validation_status=node.get("validation_status", "pending"),
                **{name: node.get(name) for name in KEPT},
            )
        )
        below = [(child, node_id, f"{path}{SEPARATOR}{child['title']}") for child in node.get("nodes", ())]
        if breadth_first:
            waiting.extend(below)
        else:
            waiting.extendleft(reversed(below))
    return rows
