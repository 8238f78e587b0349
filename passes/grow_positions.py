"""grow-positions: a longer table of positions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from graphgrow.errors import MutationError
from graphgrow.ir.editor import Editor
from graphgrow.ir.positions import present_size
from graphgrow.network.network import Network, Step
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange, offered
from graphgrow.rewrite.tables import append_rows, refuse_fixed_rows, tables


@dataclass(frozen=True)
class GrowPositions(Mutation):
    """Append rows to a table of positions, so that longer sequences can be read.

    For tables of which a sequence reads the first rows, by counting or by a slice; one that is added as a whole has the
    length of the input, and stays. What was answered to sequences that were short enough stays. Masks and other tables
    of the same length are left as they are. Exact in eval and train mode.

    Attributes:
        table: the module path of an embedding of positions, or the name of the parameter.
        extra: how many rows, at least 1.
    """

    table: str
    extra: int = 1
    name: ClassVar[str] = "grow-positions"
    summary: ClassVar[str] = "a longer table of positions"
    unasked: ClassVar[bool] = False

    @classmethod
    def sites(cls, network: Network) -> Iterator[GrowPositions | Refusal]:
        """Every table that is read from its front: by as many rows again."""
        for table in tables(network):
            if not table.by_tokens:
                rows = present_size(network.analysis.parameters[table.parameter].axes[0])
                yield offered(cls(table.site, rows), partial(refuse_fixed_rows, network, table))

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Append them."""
        for table in tables(network):
            if self.table in (table.site, table.parameter) and not table.by_tokens:
                return append_rows(network, editor, table, self.extra, generator)
        known = ", ".join(f"`{table.site}`" for table in tables(network) if not table.by_tokens) or "none"
        raise MutationError(f"`{self.table}` is no table whose first rows are read; there are {known}")
