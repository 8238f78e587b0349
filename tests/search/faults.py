"""What a worker may be asked to do in the tests: answer, raise, die, hang, or take more memory than it may."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def work(job: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """Do what the job says; `marks` is a folder in which each attempt leaves a file."""
    marks = Path(job["marks"])
    attempt = sum(1 for _ in marks.glob(f"{job['name']}-*"))
    (marks / f"{job['name']}-{attempt}-{os.getpid()}").touch()
    tell(job["do"])
    if job["do"] == "raise":
        raise ValueError("as it was told")
    if job["do"] == "die" or (job["do"] == "die once" and attempt == 0):
        os.kill(os.getpid(), signal.SIGKILL)
    if job["do"] == "die in a word":
        (pipe,) = (handle for handle in range(3, 20) if _is_written(handle))
        os.write(pipe, b'{"result": {"dou')
        os.kill(os.getpid(), signal.SIGKILL)
    if job["do"] == "hang":
        time.sleep(1000)
    if job["do"] == "eat":
        held = [bytearray(2**26) for _ in range(100)]
        return {"held": len(held)}
    sys.stdout.write("this must not be taken for an answer\n")
    return {"double": 2 * job["number"]}


def _is_written(handle: int) -> bool:
    """Whether a file descriptor is the end of a pipe that one writes into."""
    try:
        return stat.S_ISFIFO(os.fstat(handle).st_mode) and fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_WRONLY != 0
    except OSError:
        return False
