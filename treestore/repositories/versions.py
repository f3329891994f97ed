"""The versions of a policy: which there are, which one is in effect on a date, and as known when."""

from __future__ import annotations

from datetime import date

from treestore.errors import Conflict
from treestore.operations import GetVersion, InEffect, Latest, Put, Scan, WriteGroup
from treestore.records import Diff, TemporalLookup, Version
from treestore.repositories import changes, facts
from treestore.repositories.plan import D, Plan, Repository, ask, ask_all, take_turn, tell, verb
from treestore.trees import rules, timeline


class Versions(Repository[D]):
    """Verbs on versions. Dates are datetimes (naive ones mean UTC) or dates (which mean the whole day, in UTC).

    All verbs raise InvalidInput for arguments that break a rule and NotFound for what does not exist.
    """

    @verb
    def get(self, policy_id: str, version_id: str) -> Plan[Version]:
        """One version by its id. NotFound if it was deleted: the message says when."""
        rules.check_policy_id(policy_id)
        rules.check_version_id(version_id)
        return (yield from ask(GetVersion(policy_id, version_id)))

    @verb
    def list(self, policy_id: str, *, include_deleted: bool = False) -> Plan[list[Version]]:
        """The versions of a policy by ingestion, oldest first. ``include_deleted``: their tombstones too.

        NotFound if there is none to show.
        """
        rules.check_policy_id(policy_id)
        versions = yield from ask(Scan(Version, (policy_id,), index="ingested"))
        shown = [version for version in versions if include_deleted or version.deleted_at is None]
        if not shown:
            raise timeline.gone(policy_id, versions)
        return sorted(shown, key=timeline.by_ingestion)

    @verb
    def latest(self, policy_id: str) -> Plan[Version]:
        """The newest ingested version that is not deleted."""
        rules.check_policy_id(policy_id)
        return (yield from ask(GetVersion(policy_id, Latest())))

    @verb
    def get_version_as_of(self, policy_id: str, date: date, known_at: date | None = None) -> Plan[Version]:
        """The version in effect at ``date``, or at the end of that day; as known at ``known_at``, if given.

        A version is in effect from its effective date (its ingestion, where it has none) until the next one's; of equal
        starts the later ingested wins. With ``known_at`` only what had been recorded by then counts: ingestions,
        deletions and effective dates. The version comes with its present facts. NotFound if none was in effect.
        """
        rules.check_policy_id(policy_id)
        at = rules.as_question_time(date, "date")
        known = None if known_at is None else rules.as_question_time(known_at, "known_at")
        return (yield from ask(GetVersion(policy_id, InEffect(at, known))))

    @verb
    def temporal_lookup(self, policy_id: str, as_of_date: date, known_at: date | None = None) -> Plan[TemporalLookup]:
        """The version as of a date, as :meth:`get_version_as_of` gives it, and the nodes that changed with it.

        Compared is with the version that was in effect until it came into effect, by what is (or, with ``known_at``, was)
        known; where there was none, all its nodes are new. Both contents are those of now. NotFound if none was in effect.
        Raises Conflict if the policy is being changed by others without end.
        """
        rules.check_policy_id(policy_id)
        at = rules.as_question_time(as_of_date, "as_of_date")
        known = None if known_at is None else rules.as_question_time(known_at, "known_at")
        for _ in range(facts.ATTEMPTS):
            versions = yield from ask(Scan(Version, (policy_id,), index="ingested"))
            found = yield from changes.lookup(policy_id, versions, at, known)
            if found is not None:
                return found
        raise facts.contended(policy_id, None)

    @verb
    def diff(self, policy_id: str, a: str, b: str) -> Plan[Diff]:
        """What changed from version ``a`` of a policy to version ``b``: nodes added, removed, changed, moved and repaged.

        Nodes are matched by what they say, not by their ids: see :class:`~treestore.records.Diff` for what counts as which
        change and :mod:`treestore.trees.diff` for how they are matched. The cost grows with what differs and the number
        of its siblings (all children of a node are read together), not with the document. A version and itself do not
        differ. Raises Conflict if they are being changed by others without end.
        """
        rules.check_policy_id(policy_id)
        ids = rules.check_version_id(a, "a"), rules.check_version_id(b, "b")
        for _ in range(facts.ATTEMPTS):
            before, after = yield from ask_all(*[GetVersion(policy_id, version_id) for version_id in ids])
            found = yield from changes.difference(before, after)
            if found is not None:
                return found
        raise facts.contended(policy_id, None)

    @verb
    def set_effective_date(self, policy_id: str, version_id: str, date: date) -> Plan[Version]:
        """Say from when a version is in effect; returns the version as it is then.

        The date is appended to the version's facts, so that earlier knowledge stays answerable. The date that it has
        already writes nothing. Raises Conflict if the version is being changed by others without end.
        """
        rules.check_policy_id(policy_id)
        rules.check_version_id(version_id)
        effective = rules.as_fact_time(date, "effective_date")
        yield from take_turn(policy_id)
        for _ in range(facts.ATTEMPTS):
            version = yield from ask(GetVersion(policy_id, version_id))
            if version.effective_date == effective:
                return version
            changed = facts.with_effective_date(version, effective, self._clock())
            group = WriteGroup((Put(changed),), (facts.unchanged_since(version),))
            try:
                yield from tell(group)
            except Conflict:
                continue
            return changed
        raise facts.contended(policy_id, version_id)
