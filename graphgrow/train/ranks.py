"""Processes that train together, each on its share of the data: the first decides, all do the same."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import distributed

from graphgrow.errors import GraphGrowError, TrainingError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """The processes of torch.distributed's default group; one process that is alone is the first of one.

    Attributes:
        index: of this process, from 0.
        count: of all processes.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def present(cls) -> Ranks:
        """As they are now."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this process is the one that decides and writes."""
        return self.index == 0

    def decided(self, decide: Callable[[], T]) -> T:
        """What the first process decides, in every process; the others do not ask. All have to call it.

        Raises:
            GraphGrowError: what the first process raises, in every process.
        """
        if self.count == 1:
            return decide()
        outcome: list[Any] = [None, None]
        if self.first:
            try:
                outcome[0] = decide()
            except GraphGrowError as error:
                outcome[1] = error
        distributed.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise outcome[1]
        decision: T = outcome[0]
        return decision

    def gathered(self, item: T) -> list[T]:
        """The items of all processes, in order, in every process."""
        if self.count == 1:
            return [item]
        found: list[Any] = [None] * self.count
        distributed.all_gather_object(found, item)
        return found

    def share(self, batch: torch.Tensor) -> torch.Tensor:
        """This process's share of a batch; all shares are of one size, so that the mean gradient is the batch's.

        Up to `count` - 1 samples at the end are left out.
        """
        return batch[: len(batch) // self.count * self.count][self.index :: self.count]

    def require_equal(self, tensors: Iterable[torch.Tensor], what: str) -> None:
        """Refuse tensors that are not the same in every process, to the bit.

        Raises:
            TrainingError: in every process.
        """
        if self.count == 1:
            return
        found = hashlib.sha256()
        for tensor in tensors:
            plain = tensor.detach().cpu().contiguous()
            found.update(str((plain.dtype, tuple(plain.shape))).encode())
            found.update(plain.flatten().view(torch.uint8).numpy().tobytes())
        digests = self.gathered(found.hexdigest())
        different = [number for number, digest in enumerate(digests) if digest != digests[0]]
        if different:
            raise TrainingError(
                f"{what} of the processes {', '.join(map(str, different))} differ from those of the first; train in "
                "every process the same network on gradients that are averaged over all of them"
            )


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """The processes that torchrun has started, joined over gloo until the end; a group that is there is left alone."""
    if not _launched() or not distributed.is_available() or distributed.is_initialized():
        yield Ranks.present()
        return
    distributed.init_process_group("gloo")
    try:
        yield Ranks.present()
    finally:
        distributed.destroy_process_group()


def end_process() -> None:
    """End one of several processes that torchrun has started, after all is done; one that is alone goes on.

    Behind a DistributedDataParallel, gloo's threads outlive their group (torch 2.13), and now and then abort the end of
    the interpreter, by which torchrun would take a training that is done for one that failed.
    """
    if _launched():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _launched() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def started_first() -> bool:
    """Whether torchrun has started this process as the first, or it was started alone."""
    return os.environ.get("RANK", "0") == "0"
