"""grow-vocabulary: more rows in a table of embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from graphgrow.errors import MutationError
from graphgrow.ir.editor import Editor
from graphgrow.network.network import Network, Step
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange, offered
from graphgrow.rewrite.tables import Table, append_rows, refuse_fixed_rows, tables


@dataclass(frozen=True)
class GrowVocabulary(Mutation):
    """Append rows to a table of embeddings, for tokens that are new.

    They start like the old ones, normal with their standard deviation. Where the table is the weight of the head too,
    the head has as many logits more; a head of its own grows with `grow-outputs`. The answers to the old tokens stay,
    old logits in their places. Exact in eval and train mode.

    Attributes:
        embedding: the module path of the embedding, or the name of a table that is looked up bare.
        extra: how many rows, at least 1.
    """

    embedding: str
    extra: int = 1
    name: ClassVar[str] = "grow-vocabulary"
    summary: ClassVar[str] = "more rows in a table of embeddings"
    unasked: ClassVar[bool] = False

    @classmethod
    def sites(cls, network: Network) -> Iterator[GrowVocabulary | Refusal]:
        """Every table in which the caller's whole numbers look rows up."""
        for table in tables(network):
            if table.by_tokens:
                yield offered(cls(table.site), partial(refuse_fixed_rows, network, table))

    def rewrite(self, network: Network, editor: Editor, generator: torch.Generator) -> tuple[Step, list[TensorChange]]:
        """Append them."""
        found = [table for table in tables(network) if self.embedding in (table.site, table.parameter)]
        if not found or not found[0].by_tokens:
            known = ", ".join(f"`{table.site}`" for table in tables(network) if table.by_tokens) or "none"
            raise MutationError(f"`{self.embedding}` is no table that tokens are looked up in; there are {known}")
        (table, *_) = found
        assert isinstance(table, Table)
        return append_rows(network, editor, table, self.extra, generator)
