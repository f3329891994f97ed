"""What is saved of damaged stores: all that is whole, nothing that is not true, and a list of what was lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

import treestore
from tests.engine import damage
from tests.engine.damage import Damage, Sample
from tests.engine.ondisk import run_python
from tests.engine.simulated import SimulatedDisk, SimulatedFile
from tests.engine.test_damage import on_disk
from tests.engine.test_engine import hostile
from tests.engine.workload import STORE
from treestore import (
    DiskFull,
    Document,
    InvalidInput,
    Locked,
    MigrationError,
    NoStore,
    NotAStore,
    OutcomeUnknown,
    SalvageReport,
    Unavailable,
    Version,
)
from treestore.backends.btree.engine import keycode
from treestore.backends.btree.engine.batch import Job
from treestore.backends.btree.engine.engine import Engine
from treestore.backends.btree.engine.file import FileSystem, OsFile, OsFileSystem
from treestore.backends.btree.engine.format import (
    META_SIZE,
    PAGE_SIZE,
    Meta,
    Overflow,
    decode_branch,
    decode_meta,
    encode_branch,
    encode_leaf,
    verify,
)
from treestore.backends.btree.engine.recovery import TreeChange
from treestore.backends.btree.engine.salvage import find_remains
from treestore.backends.btree.engine.wal import file_name
from treestore.backends.btree.keyspace import (
    BY_INGESTION,
    COUNTERS,
    GROUPS,
    HEADS,
    INTERVALS,
    LAYOUTS,
    LENGTHS,
    NODE_IDS,
    NODES,
    PAGE_NUMBERS,
    POSTINGS,
    TEXTS,
    VERSIONS,
    Head,
    Layout,
    Parts,
    encode,
)
from treestore.backends.btree.runs import Run
from treestore.backends.btree.salvage import Salvage
from treestore.search import analyzer

Name = tuple[str, str]
Truth = dict[Name, Document | Version]
"""Every version as it was: whole, or the facts of one that was deleted."""

DERIVED = {COUNTERS, BY_INGESTION, NODE_IDS, PAGE_NUMBERS, GROUPS, POSTINGS, LENGTHS, INTERVALS}


@pytest.fixture(scope="module")
def kept() -> Sample:
    return damage.sample()


def truth_of(disk: FileSystem, folder: str = STORE) -> Truth:
    """All versions of a store, which must be sound."""
    store = damage.opened(disk, folder=folder)
    assert store.check().problems == []
    found: Truth = {}
    for policy in damage.POLICIES:
        for version in _versions(store, policy):
            name = policy, version.version_id
            gone = version.deleted_at is not None
            found[name] = version if gone else store.documents.get_document(policy, version_id=version.version_id)
    damage.abandon(store)
    return found


def _versions(store: damage.Store, policy: str) -> list[Version]:
    try:
        return store.versions.list(policy, include_deleted=True)
    except treestore.NotFound:
        return []


@pytest.fixture(scope="module")
def truth(kept: Sample) -> Truth:
    return truth_of(damage.disk_of(kept.files))


class Found:
    """What is found of a damaged store: whole versions, the others, and whether it is known to be all."""

    def __init__(self, disk: FileSystem) -> None:
        remains = find_remains(disk, STORE, 1 << 20)
        salvage = Salvage(remains)
        self.remains = remains
        self.whole: Truth = {}
        self.parts: dict[Name, Any] = {}
        self.outdated = {*salvage.unapplied()}
        self.all_named = salvage.all_named()
        for name in salvage.names():
            facts = salvage.facts(name)
            self.outdated |= {name} if salvage.outdated(name) else set()
            if facts is not None and facts.deleted_at is not None:
                self.whole[name] = facts
                continue
            content = salvage.content(name, facts)
            if content.whole and facts is not None:
                self.whole[name] = Document(version=facts, nodes=content.nodes, pages=content.pages)
            else:
                self.parts[name] = content

    @property
    def trees(self) -> set[int]:
        return {gap.tree for gap in self.remains.gaps}


def assert_once_true(found: Found, kept: Sample, name: str) -> None:
    """Every whole version is as it was after some group."""
    for (policy, version), whole in found.whole.items():
        question = f"document {policy} {version}" if isinstance(whole, Document) else f"versions {policy}"
        said = msgspec.json.encode(whole if isinstance(whole, Document) else [whole])
        assert said in [answers.get(question) for answers in kept.answers.values()], f"{name}: {policy} {version}"


def assert_true(found: Found, truth: Truth, name: str) -> None:
    """Nothing that is found is anything but what was stored; what is lost is named, with its place."""
    for version, whole in found.whole.items():
        if version not in found.outdated:
            assert whole == truth[version], f"{name}: {version}"
    for version, part in found.parts.items():
        true = truth[version]
        assert part.where, f"{name}: {version} is lost, and it does not say where"
        nodes = {node.node_id: node for node in true.nodes} if isinstance(true, Document) else {}
        for node in part.nodes:
            assert node in (nodes[node.node_id], _without_text(nodes[node.node_id])), f"{name}: {version}"
        assert all(page in true.pages for page in part.pages if isinstance(true, Document)), name
    if found.remains.certain and found.all_named:
        assert found.whole.keys() | found.parts.keys() == truth.keys(), f"{name}: a version is missing without a sign"


def _without_text(node: treestore.Node) -> treestore.Node:
    return treestore.Node(**{**{name: getattr(node, name) for name in node.__struct_fields__}, "text": None})


def test_a_sound_store_is_found_whole(kept: Sample, truth: Truth) -> None:
    found = Found(damage.disk_of(kept.files))
    assert found.whole == truth
    assert (found.parts, found.outdated, found.remains.damage, found.all_named) == ({}, set(), [], True)


def test_every_page_lost_in_turn(kept: Sample, truth: Truth) -> None:
    """What one page holds is lost, and nothing else; of derived trees nothing at all."""
    lost: Counter[int] = Counter()
    for page in range(len(kept.files["data"]) // PAGE_SIZE):
        one = damage.with_bytes(kept, "zero", "data", page * PAGE_SIZE, bytes(PAGE_SIZE))
        found = Found(damage.disk_of(one.files))
        assert_true(found, truth, one.name)
        if page and found.trees <= DERIVED:
            assert found.whole == truth, f"page {page} of {found.trees}"
        if page:
            lost.update(found.trees if found.parts else ())
            assert len(found.parts) <= 3, f"page {page}"
    assert set(lost) <= {VERSIONS, NODES, TEXTS, 9}, "of the others there are copies"


def test_random_damage_is_never_taken_for_truth(kept: Sample, truth: Truth) -> None:
    choose = random.Random(8)
    spans = [span for span in damage.ranges(kept, 1024) if any(kept.files[span[0]][span[1] : span[1] + span[2]])]
    seen: Counter[str] = Counter()
    for turn in range(200):
        files = kept.files
        chosen = choose.sample(spans, choose.choice((1, 1, 2, 5, 20)))
        for path, at, length in chosen:
            files = damage.with_bytes(kept._replace(files=files), "garbage", path, at, choose.randbytes(length)).files
        found, name = Found(damage.disk_of(files)), f"turn {turn}: {chosen}"
        assert_once_true(found, kept, name)
        if not found.all_named:
            seen["not certain"] += 1
        elif found.remains.state.lsn == kept.lsn:
            assert_true(found, truth, name)
            seen["whole" if not found.parts else "in part"] += 1
    assert seen["whole"] > 10 and seen["in part"] > 30 and seen["not certain"] > 10


def test_damaged_branches_cost_nothing(kept: Sample) -> None:
    """Their leaves are found one by one."""
    disk = SimulatedDisk()
    store = damage.opened(disk, create=True)
    for policy in damage.POLICIES:
        store.documents.store_document(policy, "1", damage.nodes(250, policy), pages=[{"page": 1, "content": policy}])
    store.documents.update_node("large", "100", text="amended", title="amended")
    damage.engine_of(store).checkpoint()
    damage.abandon(store)
    truth, files = truth_of(disk), damage.files_of(disk)
    raw = bytearray(files["data"])
    spoiled = 0
    for level, _, reference in newest_meta(files).roots.values():
        if level:
            raw[(reference >> 32) * PAGE_SIZE + 13] ^= 1
            spoiled += 1
    assert spoiled >= 3
    found = Found(damage.disk_of({**files, "data": bytes(raw)}))
    assert len(found.trees) == spoiled
    assert (found.whole, found.parts) == (truth, {})


def test_without_a_meta_page_all_is_found_by_its_looks(kept: Sample, truth: Truth) -> None:
    one = damage.with_bytes(kept, "zero", "data", 0, bytes(PAGE_SIZE))
    found = Found(damage.disk_of(one.files))
    assert (found.whole, found.parts, found.all_named) == (truth, {}, False)
    without_log = Found(damage.disk_of({"data": one.files["data"]}))
    assert {name for name in truth if name[0] not in ("late", "bulk")} == without_log.whole.keys()
    assert without_log.whole["deleted", "1"] == truth["deleted", "1"], "the newest facts are those of the greatest revision"


def test_without_a_data_file_the_log_gives_what_is_in_it(kept: Sample, truth: Truth) -> None:
    found = Found(damage.disk_of({path: raw for path, raw in kept.files.items() if path != "data"}))
    assert found.whole["late", "1"] == truth["late", "1"] and not found.all_named
    assert found.whole["shapes", "1"] == truth["shapes", "1"]
    assert list(found.parts) == [("bulk", "1")], "its leaves were in the data file"


def test_a_lost_newest_meta_page_with_a_whole_log_loses_nothing(kept: Sample, truth: Truth) -> None:
    for slot in (0, META_SIZE):
        one = damage.with_bytes(kept, "zero", "data", slot, bytes(META_SIZE))
        found = Found(damage.disk_of(one.files))
        assert (found.whole, found.parts) == (truth, {})
        assert found.remains.damage[0] == f"data file, meta page at byte {slot}: it is not valid"


@pytest.mark.parametrize("record", range(7, 12))
def test_the_log_is_applied_up_to_the_damage_and_what_follows_is_named(kept: Sample, truth: Truth, record: int) -> None:
    [place] = [one for one in kept.records if one.lsn == record]
    one = damage.with_bytes(kept, "zero", place.path, place.start + 9, bytes(20))
    found = Found(damage.disk_of(one.files))
    assert found.remains.state.lsn == record - 1
    if record == kept.lsn:
        assert found.all_named, "it looks like the torn end of a write that was never acknowledged"
        return
    assert f"{place.path}, byte {place.start}: record {record} is damaged or missing" in found.remains.damage[-1]
    assert not found.all_named
    groups = {7: ("shapes", "2"), 8: ("bulk", "1"), 9: ("late", "1"), 10: ("large", "1"), 11: ("shapes", "1")}
    assert found.outdated == {name for lsn, name in groups.items() if lsn > record}
    for name in truth.keys() - found.outdated - {groups[record]}:
        assert found.whole[name] == truth[name]


def test_a_damaged_header_or_a_missing_file_of_the_log(kept: Sample, truth: Truth) -> None:
    logs = sorted(path for path in kept.files if path.endswith(".log"))
    for path in logs:
        found = Found(damage.disk_of(damage.with_bytes(kept, "zero", path, 0, bytes(60)).files))
        assert (found.whole, found.parts) == (truth, {}), "its records tell their number themselves"
        assert f"{path}, byte 0: its header is damaged" in found.remains.damage[0]
    gone = Found(damage.disk_of({path: raw for path, raw in kept.files.items() if path != logs[2]}))
    assert gone.remains.state.lsn == 6 and not gone.all_named
    assert "records 7 to 8 are damaged or missing" in gone.remains.damage[-1]
    newest = Found(damage.disk_of({path: raw for path, raw in kept.files.items() if path != logs[1]}))
    assert newest.whole == truth and f"{file_name(2)} is missing" in newest.remains.damage[0] and not newest.all_named
    other = damage.sample()
    foreign = Found(damage.disk_of({**kept.files, logs[0]: other.files[logs[0]]}))
    assert foreign.whole == truth and "belongs to another store" in foreign.remains.damage[0]


class _BadSectors(SimulatedDisk):
    """A disk that fails to read some pages of the data file."""

    def __init__(self, disk: SimulatedDisk, pages: set[int]) -> None:
        super().__init__()
        self.names, self.durable, self.pages = disk.names, disk.durable, pages

    def open(self, path: str, *, create: bool = False) -> SimulatedFile:
        file = super().open(path, create=create)
        return _BadFile(self, path, file._inode) if path.endswith("/data") else file


class _BadFile(SimulatedFile):
    def read(self, offset: int, length: int) -> bytes:
        assert isinstance(self._disk, _BadSectors)
        if self._disk.pages & set(range(offset // PAGE_SIZE, -(-(offset + length) // PAGE_SIZE))):
            raise Unavailable(f"cannot read {self._path}: input/output error")
        return super().read(offset, length)


def test_pages_that_the_disk_fails_to_read_are_lost_and_no_others(kept: Sample, truth: Truth) -> None:
    for page in range(len(kept.files["data"]) // PAGE_SIZE):
        disk = damage.disk_of(kept.files)
        found = Found(_BadSectors(disk, {page}))
        zeroed = Found(damage.disk_of(damage.with_bytes(kept, "zero", "data", page * PAGE_SIZE, bytes(PAGE_SIZE)).files))
        assert (found.whole, found.parts.keys()) == (zeroed.whole, zeroed.parts.keys())
        assert_true(found, truth, f"bad page {page}")


# --- the whole of it, on a real disk ---------------------------------------------------------------------------------------


def saved(kept: Sample, one: Damage, folder: Path) -> tuple[SalvageReport, Truth]:
    """Salvage a damaged store; its files must be as before, on a disk that can't be written to as well."""
    source = on_disk(kept._replace(files=one.files), folder / "damaged")
    for path in (source / "wal", source):
        os.chmod(path, 0o555)
    before = sorted((str(path), path.read_bytes() if path.is_file() else b"") for path in source.rglob("*"))
    report = treestore.salvage(source, folder / "saved")
    assert sorted((str(path), path.read_bytes() if path.is_file() else b"") for path in source.rglob("*")) == before
    for path in (source, source / "wal"):
        os.chmod(path, 0o755)
    with treestore.open_sync(f"btree:///{folder / 'saved'}", create=False) as store:
        assert store.check().problems == []
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == [], "nothing unfinished is left"
    return report, truth_of(OsFileSystem(), str(folder / "saved"))


def test_a_sound_store_is_copied_whole(kept: Sample, truth: Truth, tmp_path: Path) -> None:
    report, found = saved(kept, Damage("none", kept.files, []), tmp_path)
    assert found == truth
    assert (report.complete, report.lost, report.outdated, report.damage) == (True, [], [], [])
    assert (report.versions, report.nodes) == (6, 167)
    assert not (tmp_path / "saved.parts").exists()
    with treestore.open_sync(f"btree:///{tmp_path / 'saved'}", create=False) as store:
        assert [hit.node.node_id for hit in store.documents.search_nodes("large", "amended")] == ["042", "017"]
        with pytest.raises(treestore.NotFound, match="was deleted"):
            store.documents.get_document("deleted", version_id="1")


def newest_meta(files: damage.Files) -> Meta:
    raws = [files["data"][at : at + META_SIZE] for at in (0, META_SIZE)]
    return max((meta for meta in map(decode_meta, raws) if meta is not None), key=lambda meta: meta.generation)


def page_of_tree(kept: Sample, tree: int) -> int:
    """The page of a tree's root, or of the last leaf below it, in the newest checkpoint."""
    data = kept.files["data"]
    level, _, reference = newest_meta(kept.files).roots[tree]
    while level:
        raw = data[(reference >> 32) * PAGE_SIZE :][:PAGE_SIZE]
        _, _, count, used = verify(reference, raw)
        reference, level = decode_branch(reference >> 32, raw, count, used)[1][-1], level - 1
    return reference >> 32


def test_a_version_that_is_not_whole_is_listed_and_what_can_be_read_of_it_is_kept(
    kept: Sample, truth: Truth, tmp_path: Path
) -> None:
    page = page_of_tree(kept, TEXTS)
    one = damage.with_bytes(kept, "zero", "data", page * PAGE_SIZE + 100, bytes(50))
    report, found = saved(kept, one, tmp_path)
    assert not report.complete and report.lost
    assert any(f"page {page} " in line for line in report.damage)
    lost = {(one.policy_id, one.version_id): one for one in report.lost}
    assert found == {name: whole for name, whole in truth.items() if name not in lost}
    for name, about in lost.items():
        true = truth[name]
        assert isinstance(true, Document) and about.file is not None
        assert about.nodes == about.nodes_read == len(true.nodes) and about.texts_lost > 0 and about.facts
        assert any(f"page {page} " in line for line in about.where)
        part = json.loads(Path(about.file).read_text())
        assert (part["policy_id"], part["version_id"]) == name
        assert part["version"]["tree_hash"] == true.version.tree_hash.hex()
        texts = {node.node_id: node.text for node in true.nodes}
        for node in part["nodes"]:
            assert node.get("text") == (None if node["node_id"] in part["texts_lost"] else texts[node["node_id"]])
        with treestore.open_sync("memory://") as store:
            store.documents.store_document("again", "1", part["nodes"], pages=part["pages"])
            again = store.documents.get_outline("again")
            assert [node.title for node in again] == [node.title for node in true.nodes]


@pytest.mark.parametrize("tree", sorted(DERIVED))
def test_derived_data_that_is_damaged_is_derived_anew(kept: Sample, truth: Truth, tmp_path: Path, tree: int) -> None:
    page = page_of_tree(kept, tree)
    one = damage.with_bytes(kept, "zero", "data", page * PAGE_SIZE + 20, bytes(60))
    report, found = saved(kept, one, tmp_path)
    assert found == truth and report.lost == [] and report.complete
    assert any(f"page {page} " in line for line in report.damage)


def test_facts_that_are_lost_are_never_made_up(kept: Sample, truth: Truth, tmp_path: Path) -> None:
    """The leaf of the versions' facts is gone; older copies of some are about, which is said of them."""
    raw = bytearray(kept.files["data"])
    page = page_of_tree(kept, VERSIONS)
    raw[page * PAGE_SIZE + 50] ^= 1
    report, found = saved(kept, Damage("facts", {**kept.files, "data": bytes(raw)}, []), tmp_path)
    assert not report.complete
    lost = {(one.policy_id, one.version_id) for one in report.lost}
    assert found.keys() | lost == truth.keys()
    assert all(found[name] == truth[name] for name in found if name not in report.outdated)
    assert all(not one.facts for one in report.lost)


def test_layouts_and_heads_that_are_lost_are_found_out(kept: Sample, truth: Truth, tmp_path: Path) -> None:
    raw = bytearray(kept.files["data"])
    for tree in (LAYOUTS, HEADS):  # every copy there is of either
        for page in range(1, len(raw) // PAGE_SIZE):
            found = find_remains(damage.disk_of({"data": bytes(PAGE_SIZE) + bytes(raw[PAGE_SIZE:])}), STORE, 1 << 20)
            leaf = next((leaf for leaf in found.leaves() if leaf.page == page), None)
            if leaf is not None and Salvage(found).entries._tree_of(leaf) == tree:
                raw[page * PAGE_SIZE + 13] ^= 1
    report, copied = saved(kept, Damage("layouts", {**kept.files, "data": bytes(raw)}, []), tmp_path)
    assert copied == truth and report.lost == []


# --- refusals ------------------------------------------------------------------------------------------------------------


def test_what_can_not_be_salvaged_is_refused_and_nothing_is_made(kept: Sample, tmp_path: Path) -> None:
    source, target = on_disk(kept, tmp_path / "damaged"), tmp_path / "saved"
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "letter").write_text("dear")
    for place, why in ((tmp_path / "none", NoStore), (tmp_path / "letters", NotAStore), (source / "data", NotAStore)):
        with pytest.raises(why):
            treestore.salvage(place, target)
    for folder, kind in ((tmp_path / "letters", InvalidInput), (tmp_path / "letters" / "letter", NotAStore)):
        with pytest.raises(kind, match=r"is not empty|is a file"):
            treestore.salvage(source, folder)
        with pytest.raises(kind, match=r"is not empty|is a file"):
            treestore.salvage(source, target, folder)
    for inside in (source, source / "wal" / "x"):
        with pytest.raises(InvalidInput, match="lies in the folder that is copied"):
            treestore.salvage(source, inside)
    with treestore.open_sync(f"btree:///{source}"), pytest.raises(Locked, match=f"pid {os.getpid()}"):
        treestore.salvage(source, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged", "letters"]
    (tmp_path / "empty").mkdir()
    assert treestore.salvage(source, tmp_path / "empty").complete


def test_a_store_of_another_format_is_not_salvaged(kept: Sample, tmp_path: Path) -> None:
    raw = bytearray(kept.files["data"])
    for slot in (0, META_SIZE):
        raw[slot + 16] = 3
        raw[slot + META_SIZE - 4 : slot + META_SIZE] = damage.checksum(raw[slot : slot + META_SIZE - 4])
    source = on_disk(kept._replace(files={**kept.files, "data": bytes(raw)}), tmp_path / "damaged")
    with pytest.raises(MigrationError, match="format 3"):
        treestore.salvage(source, tmp_path / "saved")


@pytest.mark.parametrize("writes", [0, 3, 5, 7, 11, 13])
def test_a_salvage_that_fails_leaves_nothing(
    kept: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    one = damage.with_bytes(kept, "zero", "data", page_of_tree(kept, TEXTS) * PAGE_SIZE + 100, bytes(50))
    source = on_disk(kept._replace(files=one.files), tmp_path / "damaged")
    plain, left = OsFile.write, writes

    def full_at_last(file: OsFile, offset: int, raw: bytes | bytearray) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise DiskFull("the disk is full")
        plain(file, offset, raw)

    with monkeypatch.context() as disk:
        disk.setattr(OsFile, "write", full_at_last)
        with pytest.raises((DiskFull, OutcomeUnknown)):
            treestore.salvage(source, tmp_path / "saved")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]
    assert treestore.salvage(source, tmp_path / "saved").lost


def test_a_salvage_that_is_killed_leaves_no_store_under_the_name(kept: Sample, tmp_path: Path) -> None:
    source = on_disk(kept, tmp_path / "damaged")
    code = """
        import os, signal, sys
        import treestore
        from treestore.backends.btree import salvage

        plain = salvage._store
        def dying(backend, facts, content):
            plain(backend, facts, content)
            os._exit(0)  # as a kill would, in the midst of it
        salvage._store = dying
        treestore.salvage(sys.argv[1], sys.argv[2])
    """
    run_python(code, str(source), str(tmp_path / "saved"))
    assert not (tmp_path / "saved").exists()
    assert treestore.salvage(source, tmp_path / "saved").complete
    shutil.rmtree(tmp_path / "saved")


def test_copies_of_an_earlier_time_are_never_taken_for_the_newest(tmp_path: Path) -> None:
    """The page that held a text before it was amended is still about, and so is the one with the facts before they changed."""
    disk = SimulatedDisk()
    store = damage.opened(disk, create=True)
    store.documents.store_document("large", "1", damage.nodes(30, "large"))
    store.documents.store_document("late", "1", damage.nodes(3, "late"))
    damage.engine_of(store).checkpoint()
    store.documents.update_node("large", "007", text="amended")
    store.versions.set_effective_date("late", "1", datetime(2026, 5, 1, tzinfo=UTC))
    damage.engine_of(store).checkpoint()
    damage.abandon(store)
    truth, files = truth_of(disk), damage.files_of(disk)

    whole = Sample(files, b"", {}, 0, [])

    def lacking(tree: int) -> Damage:
        return damage.flipped(whole, "data", page_of_tree(whole, tree) * PAGE_SIZE + 13, 1)

    def without(tree: int) -> Found:
        return Found(damage.disk_of(lacking(tree).files))

    no_texts = without(TEXTS)
    assert no_texts.whole == {("late", "1"): truth["late", "1"]}, "its texts are found on the page of before"
    part, true = no_texts.parts["large", "1"], truth["large", "1"]
    assert part.texts_lost == ["007"] and isinstance(true, Document)
    assert part.nodes == [_without_text(node) if node.node_id == "007" else node for node in true.nodes]
    no_rows = without(NODES)
    assert list(no_rows.parts) == [("large", "1")]
    assert no_rows.parts["large", "1"].nodes == [] and len(no_rows.parts["large", "1"].unproven) == 30
    no_facts = without(VERSIONS)
    assert no_facts.whole.keys() == {("late", "1")} and no_facts.outdated == truth.keys()
    found, now = no_facts.whole["late", "1"], truth["late", "1"]
    assert isinstance(found, Document) and isinstance(now, Document)
    assert (found.nodes, found.version.revision) == (now.nodes, now.version.revision - 1)
    report, _ = saved(whole, lacking(VERSIONS), tmp_path)
    assert (report.complete, report.outdated, len(report.lost)) == (False, [("late", "1")], 1)


def test_what_is_of_another_policy_is_never_taken_for_a_part(kept: Sample) -> None:
    """Versions have equal ids in many policies. Which number a policy has is lost, and so are the facts and some nodes."""
    damaged = kept
    for tree in (HEADS, VERSIONS, NODES):
        one = damage.flipped(damaged, "data", page_of_tree(kept, tree) * PAGE_SIZE + 13, 1)
        damaged = damaged._replace(files=one.files)
    strays = find_remains(damage.disk_of(damaged.files), STORE, 1 << 20)
    raw = bytearray(damaged.files["data"])
    for leaf in strays.leaves():
        if leaf.keys[0] in (b"bulk", b"deleted", keycode.encode(("deleted", "1"))):  # older copies of the heads and the facts
            raw[leaf.page * PAGE_SIZE + 13] ^= 1
    found = Found(damage.disk_of({**damaged.files, "data": bytes(raw)}))
    assert ("deleted", "1") in found.parts, "it is known by the index of ingestions alone"
    assert (found.parts["deleted", "1"].nodes, found.parts["deleted", "1"].unproven) == ([], [])


# --- more than one thing at once -------------------------------------------------------------------------------------------


def test_what_is_searched_by_another_analyzers_words_is_made_searchable_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older, treestore.open_sync(f"btree:///{tmp_path / 'store'}") as store:
        older.setattr(analyzer, "VERSION", "0 older")
        store.documents.store_document("p", "1", damage.nodes(20, "leaves"))
        store.documents.store_document("q", "1", damage.nodes(20, "leaves"), searchable=False)
        before = store.versions.get("p", "1")
    assert treestore.salvage(tmp_path / "store", tmp_path / "saved").complete
    with treestore.open_sync(f"btree:///{tmp_path / 'saved'}", create=False) as store:
        after = store.versions.get("p", "1")
        assert after == msgspec.structs.replace(before, analyzer=analyzer.VERSION)
        assert store.documents.search_nodes("p", "leave")
        assert store.versions.get("q", "1").analyzer == ""
        assert store.check().ok


def test_a_hostile_file_takes_bounded_time_and_memory(tmp_path: Path) -> None:
    """Branches that lead to one another twice, a value longer than the file, and a layout with more nodes than there are."""
    pages = [encode_leaf(1, [b"k"], [Overflow(1, 7, 2**62)])]
    for level in range(1, 40):
        pages.append(encode_branch(level + 1, level, [b"k"], [pages[-1][0]] * 2))
    hostile(str(tmp_path / "cycle"), pages, 39)
    report = treestore.salvage(tmp_path / "cycle", tmp_path / "one")
    assert any("is used twice" in line for line in report.damage) and report.versions == 0
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    facts = Version(policy_id="p", version_id="1", ingested_at=moment, created_at=moment, updated_at=moment)
    facts = msgspec.structs.replace(facts, node_count=2**50, page_count=2**50)
    huge = Layout(1, 2**50, 2**50, (Run(0, 0, 2**51),), (Run(0, 0, 2**50),), Parts(1, 1, 1), (1,))
    trees = {
        VERSIONS: (keycode.encode(("p", "1")), encode(facts)),
        HEADS: (b"p", encode(Head(1, 1, 1, 1))),
        LAYOUTS: (b"\0\0\0\x011", encode(huge)),
    }
    engine = Engine.open(str(tmp_path / "huge"))
    engine.commit([job := Job(lambda _: [TreeChange(tree, [key], [raw]) for tree, (key, raw) in sorted(trees.items())])])
    assert job.error is None
    engine.close()
    report = treestore.salvage(tmp_path / "huge", tmp_path / "two")
    assert [(one.nodes, one.nodes_read, one.pages_read) for one in report.lost] == [(2**50, 0, 0)]


def test_a_store_that_this_user_may_only_read_is_salvaged_and_restored(kept: Sample) -> None:
    code = """
        import os, sys
        import treestore
        from treestore.backends.btree import restoring, salvage  # while this user may read them
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        source, target = sys.argv[1:]
        try:
            treestore.open_sync(f"btree:///{source}")
        except treestore.ReadOnly:
            print(treestore.salvage(source, target + "/saved").complete, treestore.restore(source, target + "/restored"))
    """
    with tempfile.TemporaryDirectory(prefix="treestore-test-") as folder:
        source, target = on_disk(kept, Path(folder, "store")), Path(folder, "target")
        target.mkdir()
        for path, mode in ((Path(folder), 0o755), (target, 0o777)):
            os.chmod(path, mode)
        for path in (*source.rglob("*"), source):
            os.chmod(path, 0o555 if path.is_dir() else 0o444)
        said = run_python(code, str(source), str(target)).stdout
        assert said.startswith("True ")
        for path in (source, *source.rglob("*")):
            os.chmod(path, 0o755)
