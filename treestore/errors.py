"""Every error that treestore raises, as one tree.

Each class has a stable ``code`` (for logs, for the command line's ``--json`` and, later, for the wire) and says by
``retryable`` whether the same call may succeed if it is simply made again. Messages are one line and say what to do next
where that is not obvious. A driver's or the operating system's error is chained as ``__cause__``, never let through.
"""

from __future__ import annotations

from typing import ClassVar


class TreestoreError(Exception):
    """Base of all errors of this package."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False


class NotFound(TreestoreError):
    """A policy, version, node or page that was named does not exist (or was deleted)."""

    code = "not_found"


class Conflict(TreestoreError):
    """An expectation of a write group did not hold; nothing of the group was applied. Read again, decide again."""

    code = "conflict"


class InvalidInput(TreestoreError, ValueError):
    """Input that breaks a rule; nothing was written.

    The message is built from its parts, which stay readable: ``source`` (the file that the input came from, where it came
    from one), ``node`` (the node's id, or its place in the input where it has none), ``field`` (dotted where nested) and
    ``rule``.
    """

    code = "invalid_input"

    def __init__(self, rule: str, *, field: str | None = None, node: str | None = None, source: str | None = None) -> None:
        where = [source] if source is not None else []
        where += [f"node {node!r}"] if node is not None else []
        where += [field] if field is not None else []
        super().__init__(": ".join([*where, rule]))
        self.rule = rule
        self.field = field
        self.node = node
        self.source = source

    def of(self, source: str) -> InvalidInput:
        """The same error, naming the input that it was found in."""
        return InvalidInput(self.rule, field=self.field, node=self.node, source=source)


class NotSearchable(TreestoreError):
    """A search in a version that was stored without postings, or whose postings another version of the analyzer made."""

    code = "not_searchable"


class Corrupted(TreestoreError):
    """Stored bytes are not what was written. The message says where; nothing wrong is ever returned instead."""

    code = "corrupted"


class Unavailable(TreestoreError):
    """The store can't be used now: another process holds it, it can't be read, or writes stopped after a failed sync."""

    code = "unavailable"
    retryable = True


class Locked(Unavailable):
    """Another process, or another open store in this one, holds the store."""

    code = "locked"


class DiskFull(Unavailable):
    """The disk (or a quota) is full. What was committed is safe and readable; the failed group was not applied."""

    code = "disk_full"


class Timeout(Unavailable):
    """The store did not answer in the time that the settings allow. What was asked was not applied."""

    code = "timeout"


class AccessDenied(TreestoreError):
    """The server refused the user or the password, or the user lacks a right."""

    code = "access_denied"


class NotSupported(TreestoreError):
    """This kind of store does not do what was asked; another way is named."""

    code = "not_supported"


class OutcomeUnknown(TreestoreError):
    """Whether a group was applied can't be known. Retry the same group (same id): it is applied at most once."""

    code = "outcome_unknown"
    retryable = True


class ReadOnly(TreestoreError):
    """A write to a snapshot, or to a store that can't be written to."""

    code = "read_only"


class Closed(TreestoreError):
    """The store or the snapshot was closed, reached its maximum age, or was opened by another process before a fork."""

    code = "closed"


class MigrationError(TreestoreError):
    """The stored format and this version of treestore do not fit each other."""

    code = "migration"


class NotAStore(TreestoreError):
    """The place that the URL names holds something else than a treestore."""

    code = "not_a_store"


class NoStore(NotAStore):
    """The place that the URL names is empty, and the store was not to be made."""

    code = "no_store"


class BrokenTree(UserWarning):
    """Nodes that were not written by treestore form no tree; they are read as a flat list. It says which version, and why."""

    def __init__(self, policy_id: str, version_id: str, reason: str) -> None:
        super().__init__(f"policy {policy_id!r} version {version_id!r} forms no tree and is read as a flat list: {reason}")
        self.policy_id = policy_id
        self.version_id = version_id
        self.reason = reason
