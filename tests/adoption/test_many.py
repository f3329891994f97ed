"""Many versions adopted and derived beside the service that goes on working on them, with runs that are killed.

``scripts/benchmark_adoption.py`` does the same with more, and prints what it takes.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

import treestore
from tests.adoption import adopting, trees
from tests.adoption.many import Beside, Locks, derive_with_a_kill, fill, meanwhile, touched
from tests.adoption.old_service.service import Service
from tests.adoption.writers import assert_same_for_both

ROOT = Path(__file__).resolve().parents[2]
VERSIONS, NODES = 40, 50


def test_many_are_adopted_and_derived_beside_the_service(url: str, service: Service) -> None:
    fill(service, VERSIONS, NODES)
    file_of = "SELECT pg_relation_filenode('policy_nodes')"
    beside, locks, file = Beside(service, VERSIONS), Locks(url), adopting.one(url, file_of)
    with meanwhile(beside, locks):
        adopting.upgrade(url)
        assert adopting.one(url, file_of) == file, "the table was not rewritten"
        locks.held.clear()
        found = derive_with_a_kill(url, VERSIONS // 4)
        assert {mode for _, mode in locks.held} <= {"AccessShareLock", "RowShareLock", "RowExclusiveLock"}
    assert found.before + found.after == VERSIONS
    assert found.before >= VERSIONS // 4
    assert found.again == 0
    assert found.summary["derived"] >= found.after
    assert len(beside.reads) > 20
    assert len(beside.writes) > 20
    adopting.repair(url)
    assert adopting.derive(url)["derived"] == 0, "nothing is left"
    with treestore.open_sync(url) as store:
        for at in range(0, VERSIONS, 7):
            assert_same_for_both(service, store, (f"policy {at % 10}", f"{at // 10}"))
        assert store.check().problems == []
    assert adopting.deadlocks(url) == 0


def test_runs_that_are_killed_at_any_moment(url: str, service: Service) -> None:
    """What one has derived the next one leaves alone, and the last one finds all done."""
    fill(service, VERSIONS, 10)
    adopting.upgrade(url)
    before, rng = adopting.old_rows(url), random.Random(7)
    done = touched(url)
    for _ in range(8):
        with subprocess.Popen(adopting.command(url, "derive", "--json"), stdout=subprocess.PIPE) as run:
            time.sleep(rng.uniform(0.3, 1.2))
            run.kill()
            run.wait()
        adopting.wait_for_others(url)
        now = touched(url)
        assert now | done == now
        done = now
    adopting.derive(url)
    assert touched(url) | done == touched(url)
    assert len(touched(url)) == VERSIONS
    assert adopting.old_rows(url) == before


def test_two_runs_at_once_do_nothing_twice(url: str, service: Service) -> None:
    fill(service, VERSIONS, 10)
    adopting.upgrade(url)
    command = adopting.command(url, "derive", "--json")
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    summaries = [json.loads(run.communicate(timeout=60)[0]) for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert sum(summary["derived"] for summary in summaries) == VERSIONS + 4
    with treestore.open_sync(url) as store:
        assert store.check().problems == []


def test_what_the_service_ingests_while_it_is_derived_is_not_lost(url: str, service: Service) -> None:
    """A version that is in the hands of a run is ingested anew: what stays is the new tree, derived or to be derived."""
    fill(service, VERSIONS, NODES)
    adopting.upgrade(url)
    with subprocess.Popen(adopting.command(url, "derive", "--json"), stdout=subprocess.PIPE) as run:
        turn = 0
        while run.poll() is None:
            at = turn % VERSIONS
            service.reingest(f"policy {at % 10}", f"{at // 10}", trees.generation(turn))
            turn += 1
        assert run.returncode in (0, 1), "others may have held rows of some"
    assert turn > 0
    with treestore.open_sync(url) as store:
        for at in range(min(turn, VERSIONS)):
            assert_same_for_both(service, store, (f"policy {at % 10}", f"{at // 10}"))
        adopting.repair(url)
        assert store.check().problems == []
    assert adopting.deadlocks(url) == 0


def test_the_benchmark_in_short() -> None:
    sizes = ["--versions", "20", "--nodes", "10", "--reads", "80"]
    command = [sys.executable, str(ROOT / "scripts" / "benchmark_adoption.py"), *sizes]
    ran = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.endswith("all as it must be\n")


def test_a_statement_that_takes_too_long_is_not_blamed_on_others(
    url: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of a very large version may: who is told to run it again would do so for ever."""
    service.persist("p", "1", trees.policy())
    adopting.upgrade(url)
    slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(9); RETURN NEW; END'"
    adopting.by_hand(url, slow)
    adopting.by_hand(url, "CREATE TRIGGER slow BEFORE UPDATE ON policy_nodes FOR EACH ROW EXECUTE FUNCTION slow()")
    monkeypatch.setenv("TREESTORE_STATEMENT_TIMEOUT_SECONDS", "1")
    ran = adopting.run(url, "derive")
    assert ran.status == 1
    assert "TREESTORE_STATEMENT_TIMEOUT_SECONDS" in ran.err
    assert "others held" not in ran.err
    assert adopting.status(url)["underived"] == 1
