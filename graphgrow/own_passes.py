"""All that the author of a pass needs, in one place.

    from graphgrow.own_passes import Editor, Insertion, Mutation, Network, Refusal, Step, TensorChange, register_pass

A pass is a subclass of `Mutation`, which `register_pass` makes known. Its `sites` yields what `offered` gives; its
`rewrite` makes changes by an `Insertion`, by `plan_growth` and `grow`, by `exchange`, or by `bypass`, and raises
`Declined` where it would not be exact. docs/writing_passes.md has an example.
"""

from __future__ import annotations

from graphgrow.blocks.block import Block
from graphgrow.blocks.style import Style
from graphgrow.errors import Declined, MutationError
from graphgrow.ir.called import called_module
from graphgrow.ir.editor import Editor
from graphgrow.ir.positions import Units
from graphgrow.network.network import Network, Step
from graphgrow.planning.growth import Kind
from graphgrow.planning.plan import plan_growth
from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange, offered
from graphgrow.rewrite.erase import bypass
from graphgrow.rewrite.exchange import exchange
from graphgrow.rewrite.grow import grow
from graphgrow.rewrite.growable import growable
from graphgrow.rewrite.insert import Insertion
from graphgrow.rewrite.registry import register_pass

__all__ = [
    "Block",
    "Declined",
    "Editor",
    "Insertion",
    "Kind",
    "Mutation",
    "MutationError",
    "Network",
    "Refusal",
    "Step",
    "Style",
    "TensorChange",
    "Units",
    "bypass",
    "called_module",
    "exchange",
    "grow",
    "growable",
    "offered",
    "plan_growth",
    "register_pass",
]
