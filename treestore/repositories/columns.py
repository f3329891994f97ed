"""The columns of a version as a caller gives them, checked; pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any, TypedDict, get_args

from treestore.catalog import VERSIONS
from treestore.errors import InvalidInput
from treestore.records import Envelope, Shape, Version
from treestore.search import analyzer
from treestore.trees import rules

NOT_YET = datetime(1, 1, 1, tzinfo=UTC)
"""Stands in a row's times until it is known what row it takes the place of."""


class Columns(TypedDict):
    """What ``store_document`` takes about a version, beside its nodes and pages."""

    pageindex_doc_id: str
    pdf_sha256: str
    markdown_ptr: str
    tree_json_ptr: str
    source_url: str | None
    effective_date: date | None
    revision_date: date | None
    tree_validated_by: str | None
    tree_validated_at: date | None
    metadata: dict[str, Any] | None
    description: str
    created_by: str
    tags: Iterable[str]
    pageindex: Envelope | None
    searchable: bool


def checked(policy_id: str, version_id: str, columns: Columns) -> Version:
    """A version's row with its given columns. Its times, counts and hashes are still to be filled in.

    Raises InvalidInput naming the first column that breaks a rule.
    """
    return Version(
        policy_id=rules.check_policy_id(policy_id),
        version_id=rules.check_version_id(version_id),
        pageindex_doc_id=_text(columns["pageindex_doc_id"], "pageindex_doc_id"),
        pdf_sha256=_text(columns["pdf_sha256"], "pdf_sha256"),
        markdown_ptr=_text(columns["markdown_ptr"], "markdown_ptr"),
        tree_json_ptr=_text(columns["tree_json_ptr"], "tree_json_ptr"),
        source_url=_optional_text(columns["source_url"], "source_url"),
        effective_date=_optional_time(columns["effective_date"], "effective_date"),
        revision_date=_optional_time(columns["revision_date"], "revision_date"),
        tree_validated_by=_optional_text(columns["tree_validated_by"], "tree_validated_by"),
        tree_validated_at=_optional_time(columns["tree_validated_at"], "tree_validated_at"),
        metadata=_optional_object(columns["metadata"], "metadata"),
        description=_text(columns["description"], "description"),
        created_by=_text(columns["created_by"], "created_by"),
        tags=rules.check_texts(columns["tags"], "tags"),
        pageindex=_envelope(columns["pageindex"]),
        analyzer=analyzer.VERSION if _flag(columns["searchable"], "searchable") else "",
        ingested_at=NOT_YET,
        created_at=NOT_YET,
        updated_at=NOT_YET,
    )


def _text(value: object, column: str) -> str:
    if type(value) is str and not value:  # most columns of most documents
        return value
    return rules.check_text(value, column, limit=VERSIONS.lengths.get(column))


def _optional_text(value: object, column: str) -> str | None:
    return rules.check_optional_text(value, column, limit=VERSIONS.lengths.get(column))


def _flag(value: object, column: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput(f"must be True or False, not {rules.shown(value)}", field=column)
    return value


def _optional_time(value: object, column: str) -> datetime | None:
    return None if value is None else rules.as_fact_time(value, column)


def _optional_object(value: object, column: str) -> dict[str, Any] | None:
    return None if value is None else rules.check_json_object(value, column)


def _envelope(value: object) -> Envelope | None:
    if value is None:
        return None
    shapes, shown = get_args(Shape), rules.shown
    if not isinstance(value, Envelope):
        rule = f"must be an Envelope, as treestore.pageindex.read gives it, not {shown(value)}"
        raise InvalidInput(rule, field="pageindex")
    if value.shape not in shapes:
        raise InvalidInput(f"must be one of {', '.join(shapes)}, not {shown(value.shape)}", field="pageindex.shape")
    return Envelope(
        shape=value.shape,
        fields=rules.check_json_object(value.fields, "pageindex.fields"),
        keys=rules.check_texts(value.keys, "pageindex.keys"),
        node_keys=rules.check_texts(value.node_keys, "pageindex.node_keys"),
        page_keys=rules.check_texts(value.page_keys, "pageindex.page_keys"),
        generated_ids=_flag(value.generated_ids, "pageindex.generated_ids"),
    )
