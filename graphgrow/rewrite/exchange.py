"""Exchanging the operator of one node for a module, the node itself staying where it is."""

from __future__ import annotations

from torch import fx, nn

from graphgrow.ir.editor import Editor, shallow_copy
from graphgrow.ir.meta import FIXED
from graphgrow.network.neighbours import near_parameters
from graphgrow.network.network import Network, Step
from graphgrow.network.sites import STEM, stem_of
from graphgrow.rewrite.insert import fresh_path
from graphgrow.rewrite.shapes import check_shapes


def exchange(network: Network, editor: Editor, node: fx.Node, module: nn.Module, site: str, name: str) -> Step:
    """Let a node of one input call another module.

    The module takes the place of the old one where that is called by this node alone; otherwise it stands beside it.

    Args:
        network: the parent.
        editor: over a copy of the parent's module.
        node: of the parent.
        module: elementwise; what it holds of the editor's tensors stays theirs, new ones take the site's device and
            dtype.
        site: the name of the node.
        name: of the pass.

    Raises:
        StructureError: if a shape changes.
    """
    near = next(near_parameters(network.module, node), None)
    device = network.inputs.device if near is None else near.device
    known = {id(parameter): name for name, parameter in editor.module.named_parameters()}
    for part in module.modules():
        for key, parameter in part._parameters.items():
            if parameter is not None and id(parameter) not in known:
                moved = parameter.detach().to(device=device, dtype=node.meta["value"].dtype)
                part._parameters[key] = nn.Parameter(moved)
    mine = editor.node(node.name)
    path = str(node.target)
    calls = [other for other in network.module.graph.nodes if other.op == "call_module" and other.target == node.target]
    if node.op != "call_module" or len(calls) > 1:
        path = fresh_path(editor.module, site, name)
    editor.module.add_submodule(path, shallow_copy(module).train(editor.module.training))
    mine.meta[STEM] = stem_of(mine)  # the site keeps its name, and so do those that are counted behind it
    mine.op, mine.target, mine.args, mine.kwargs = "call_module", path, node_input(mine), {}
    mine.meta.pop(FIXED, None)
    check_shapes(network, editor)
    touched = {name for earlier in network.steps for name in earlier.touched}
    names = [(name, known.get(id(parameter))) for name, parameter in editor.module.named_parameters()]
    # what is new, and what was new already and has another name now
    return Step(touched=tuple(name for name, was in names if was is None or (was != name and was in touched)))


def node_input(node: fx.Node) -> tuple[fx.Node]:
    """The one tensor that a node reads."""
    (source,) = node.all_input_nodes
    return (source,)
