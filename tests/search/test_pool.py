"""Real processes: what dies, hangs, raises or eats is a failure of one request, and nobody outlives the parent."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from graphgrow.search.engine import run
from graphgrow.search.pool import Pool

TARGET = "tests.search.faults:work"


def jobs(marks: Path, *what: str) -> list[dict[str, Any]]:
    return [{"marks": str(marks), "name": f"job{n}", "number": n, "do": do} for n, do in enumerate(what)]


@pytest.fixture
def pool() -> Any:
    made = Pool(2, TARGET, memory_gib=0.5)
    yield made
    made.close()


def test_one_failure_never_ends_the_run(pool: Pool, tmp_path: Path) -> None:
    requests = jobs(tmp_path, "answer", "die once", "raise", "die", "eat", "answer", "answer")
    found = {outcome.place: outcome for outcome in run(pool, requests, retries=1, seconds=60.0)}
    assert {place: found[place].result for place in (0, 1, 5, 6)} == {n: {"double": 2 * n} for n in (0, 1, 5, 6)}
    assert [found[place].attempts for place in range(5)] == [1, 2, 1, 2, 2]
    assert found[2].reason == "ValueError: as it was told"
    assert found[3].reason == "its worker was killed by signal 9 (2 attempts)"
    assert found[4].reason == "out of memory (2 attempts)"
    assert pool.restarts == 5
    assert len(list(tmp_path.iterdir())) == 7 + 1 + 1 + 1


def test_a_worker_that_dies_in_the_middle_of_its_answer_is_heard_of(pool: Pool, tmp_path: Path) -> None:
    requests = jobs(tmp_path, "die in a word", "answer")
    found = {outcome.place: outcome for outcome in run(pool, requests, retries=0, seconds=20.0)}
    assert found[0].reason == "its worker was killed by signal 9"
    assert found[1].result == {"double": 2}


def test_a_hanging_worker_is_killed(pool: Pool, tmp_path: Path) -> None:
    (outcome,) = run(pool, jobs(tmp_path, "hang"), retries=0, seconds=0.0)
    assert outcome.reason == "it took longer than 0 s"
    assert pool.pids == []


def test_a_target_that_cannot_be_imported(tmp_path: Path) -> None:
    pool = Pool(1, "tests.search.absent:work")
    (outcome,) = run(pool, jobs(tmp_path, "answer"), retries=0, seconds=60.0)
    pool.close()
    assert "ended with exit code 1" in outcome.reason
    assert "No module named 'tests.search.absent'" in outcome.reason


def gone(pid: int) -> bool:
    """Wait until a process that is not ours has ended; a zombie has."""
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, timeout=0.01, check=False)
    return False


@pytest.mark.skipif(not Path("/proc").exists(), reason="asks /proc for the state of a process")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_leave_with_their_parent(how: int, tmp_path: Path) -> None:
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in background jobs
        "import sys; from graphgrow.search.pool import Pool; from tests.search.test_pool import TARGET, jobs\n"
        "from pathlib import Path\n"
        "pool = Pool(1, TARGET); pool.start(1, jobs(Path(sys.argv[1]), 'hang')[0])\n"
        "while not pool.states or pool.states[1] != 'hang': pool.wait(0.05)\n"
        "print(*pool.pids, flush=True)\n"
        "while True: pool.wait(60.0)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(parent.pid, how)
    parent.wait(10)
    parent.stdout.close()
    assert gone(pid)
