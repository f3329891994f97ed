"""The reasoning-service's tables as its own code has declared them, years before anybody shared them."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, String, Text, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


def now() -> datetime:
    """The moment, in UTC and naive, as all times of this service are."""
    return datetime.now(UTC).replace(tzinfo=None)


class Base(DeclarativeBase):
    """What the service's tables are collected in; autogenerate compares the database with it."""


class PolicyVersion(Base):
    """One ingestion of a policy's document."""

    __tablename__ = "policy_versions"
    __table_args__ = (Index("idx_versions_recent", "policy_id", "ingested_at"),)

    policy_id: Mapped[str] = mapped_column(String(100), primary_key=True)
    version_id: Mapped[str] = mapped_column(String(50), primary_key=True)
    pageindex_doc_id: Mapped[str] = mapped_column(String(64))
    pdf_sha256: Mapped[str] = mapped_column(String(64))
    markdown_ptr: Mapped[str] = mapped_column(Text)
    tree_json_ptr: Mapped[str] = mapped_column(Text)
    source_url: Mapped[str | None] = mapped_column(Text)
    effective_date: Mapped[datetime | None]
    revision_date: Mapped[datetime | None]
    ingested_at: Mapped[datetime] = mapped_column(default=now, server_default=func.now())
    tree_validated_by: Mapped[str | None] = mapped_column(String(100))
    tree_validated_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now, server_default=func.now())

    nodes: Mapped[list[PolicyNode]] = relationship(
        back_populates="version", order_by="PolicyNode.id", cascade="all, delete-orphan"
    )


class PolicyNode(Base):
    """A section of a document. Siblings stand in the order of ``id``."""

    __tablename__ = "policy_nodes"
    __table_args__ = (
        ForeignKeyConstraint(
            ["policy_id", "version_id"],
            ["policy_versions.policy_id", "policy_versions.version_id"],
            name="fk_nodes_version",
        ),
        CheckConstraint("(page_start IS NULL AND page_end IS NULL) OR page_start <= page_end", name="ck_nodes_pages"),
        CheckConstraint("validation_status IN ('pending', 'approved', 'flagged')", name="ck_nodes_status"),
        Index("idx_nodes_by_node", "policy_id", "version_id", "node_id"),
        Index("idx_nodes_by_parent", "policy_id", "version_id", "parent_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    policy_id: Mapped[str] = mapped_column(String(100))
    version_id: Mapped[str] = mapped_column(String(50))
    node_id: Mapped[str] = mapped_column(String(100))
    parent_id: Mapped[str | None] = mapped_column(String(100))
    section_path: Mapped[str] = mapped_column(String(500))
    title: Mapped[str] = mapped_column(Text)
    page_index: Mapped[int | None]
    page_start: Mapped[int | None]
    page_end: Mapped[int | None]
    summary: Mapped[str | None] = mapped_column(Text)
    text: Mapped[str | None] = mapped_column(Text)
    content_hash: Mapped[str] = mapped_column(String(64))
    validation_status: Mapped[str] = mapped_column(String(20), default="pending", server_default="pending")
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now, server_default=func.now())

    version: Mapped[PolicyVersion] = relationship(back_populates="nodes")


class ReasoningOutput(Base):
    """What the service concluded about a criterion, by which version of a policy."""

    __tablename__ = "reasoning_outputs"
    __table_args__ = (
        ForeignKeyConstraint(
            ["policy_id", "version_id"],
            ["policy_versions.policy_id", "policy_versions.version_id"],
            name="fk_outputs_version",
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    case_id: Mapped[str] = mapped_column(String(100))
    criterion_id: Mapped[str] = mapped_column(String(100))
    policy_id: Mapped[str] = mapped_column(String(100))
    version_id: Mapped[str] = mapped_column(String(50))
    status: Mapped[str] = mapped_column(String(20))
    rationale: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=now, server_default=func.now())

    version: Mapped[PolicyVersion] = relationship()


class PolicyValidationIssue(Base):
    """Something that a reviewer found wrong with a version."""

    __tablename__ = "policy_validation_issues"
    __table_args__ = (
        ForeignKeyConstraint(
            ["policy_id", "version_id"],
            ["policy_versions.policy_id", "policy_versions.version_id"],
            name="fk_issues_version",
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    policy_id: Mapped[str] = mapped_column(String(100))
    version_id: Mapped[str] = mapped_column(String(50))
    node_id: Mapped[str | None] = mapped_column(String(100))
    issue: Mapped[str] = mapped_column(Text)
    output_id: Mapped[int | None] = mapped_column(ForeignKey("reasoning_outputs.id", name="fk_issues_output"))
    created_at: Mapped[datetime] = mapped_column(default=now, server_default=func.now())
