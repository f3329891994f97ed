"""``scripts/benchmark_guard.py``: what falls short is said, and is the end's status."""

from __future__ import annotations

import pytest

from scripts import benchmark_guard as guard
from treestore.bench.cases import CASES, LMDB, SQLITE, TREESTORE


@pytest.mark.parametrize(("least", "status"), [(0.0001, 0), (10_000.0, 1)])
def test_the_main_rows_are_held_to_their_bounds(
    least: float, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bounds = {"store": (TREESTORE, SQLITE, 0.0001), "node": (TREESTORE, LMDB, least)}
    monkeypatch.setattr(guard, "LEAST", bounds)
    assert guard.main(["--nodes", "60", "--rounds", "1"]) == status
    lines = capsys.readouterr().out.splitlines()
    assert [line[13:].split()[0] for line in lines[:2]] == ["store", "node"]
    assert [line.startswith("falls short") for line in lines[:2]] == [False, status == 1]
    assert lines[2] == f"{2 - status} of 2 rows are within their bounds"


def test_every_bound_is_of_a_row_that_there_is() -> None:
    assert guard.LEAST.keys() <= {case.name for case in CASES}


def test_wrong_numbers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        guard.main(["--nodes", "0"])
    assert end.value.code == 2
    assert "from 1 to 1000000" in capsys.readouterr().err
