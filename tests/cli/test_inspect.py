"""`inspect` and `mutations`."""

from __future__ import annotations

import graphgrow as gg
from tests.cli.commands import MLP, SHAPE, call, json_of


def test_inspect_tells_what_can_grow_and_what_cannot() -> None:
    shown = call("inspect", "graphgrow:vgg").stdout
    assert "graphgrow:vgg: VGG" in shown
    assert " MFLOPs for one sample" in shown
    assert "channel groups can grow" in shown
    assert "a model output" in shown
    assert "graphgrow mutations graphgrow:vgg" in shown


def test_inspect_never_cuts_a_groups_name() -> None:
    shown = call("inspect", "graphgrow:vit").stdout
    for group in gg.trace("graphgrow:vit").groups:
        assert group.name in shown


def test_inspect_names_the_operators_without_a_rule() -> None:
    assert "operators that froze what they touch" in call("inspect", "tests.cli.commands:without_a_rule", SHAPE).stdout


def test_inspect_text_is_that_of_the_graph() -> None:
    assert call("inspect", "graphgrow:mlp", "--text").stdout.strip() == gg.trace("graphgrow:mlp").text()


def test_inspect_says_what_comes_next_with_all_that_it_needs() -> None:
    assert f"next: graphgrow mutations {MLP} --input 2,4" in call("inspect", MLP, SHAPE).stdout


def test_inspect_as_json() -> None:
    found = json_of("inspect", MLP, SHAPE)
    assert found["parameters"] == 4 * 6 + 6 + 6 * 3 + 3
    assert found["flops"] == 2 * (4 * 6 + 6 * 3)
    assert found["inputs"] == [{"shape": [2, 4], "dtype": "float32"}]
    sizes = {group["name"]: (group["size"], group["frozen"] is None) for group in found["groups"]}
    assert sizes == {"0": (6, True), "2": (3, False)}


def test_inspect_says_why_flops_cannot_be_counted() -> None:
    model = "tests.cli.commands:fixed_batch"
    shown = call("inspect", model, SHAPE).stdout
    assert "30 parameters, FLOPs unknown" in shown
    assert "does not run on a batch of 1" in shown
    assert json_of("inspect", model, SHAPE)["flops"] is None


def test_mutations_are_listed_one_a_line_and_can_be_parsed() -> None:
    lines = call("mutations", MLP, SHAPE).stdout.splitlines()
    assert [str(gg.parse_mutation(line)) for line in lines] == lines
    assert json_of("mutations", MLP, SHAPE)["mutations"] == lines


def test_mutations_of_one_pass() -> None:
    listed, refused = call("mutations", MLP, SHAPE, "--pass", "widen").stdout.splitlines()
    assert listed == "widen(0, extra=3)"
    assert refused == "# not at 2: frozen: a model output (at `output`)"  # a comment, should it go into a recipe
    assert call("mutations", MLP, SHAPE, "--pass", "widen", "--cost").stdout.splitlines()[-1] == refused
    assert call("mutations", MLP, SHAPE, "--pass", "add-heads").stdout == "# add-heads finds no place in this model\n"
    told = json_of("mutations", MLP, SHAPE, "--pass", "widen")["refusals"]
    assert told == [{"pass": "widen", "site": "2", "reason": "frozen: a model output (at `output`)"}]
    assert "there is no pass `wide`" in call("mutations", MLP, SHAPE, "--pass", "wide", code=1).stderr


def test_mutations_with_their_cost() -> None:
    listed = call("mutations", MLP, SHAPE).stdout.splitlines()
    title, *lines = call("mutations", MLP, SHAPE, "--cost").stdout.splitlines()
    assert title.split() == ["parameters", "FLOPs", "mutation"]
    assert [line.split(maxsplit=2)[2] for line in lines] == listed
    # 3 more units between 4 inputs and 3 outputs: weights and biases
    assert "+24 +42 widen(0, extra=3)" in [" ".join(line.split()) for line in lines]
    assert len({line.index("  " + text) for line, text in zip(lines, listed, strict=True)}) == 1
    found = json_of("mutations", MLP, SHAPE, "--cost")
    assert found["mutations"] == listed
    assert found["costs"][listed.index("widen(0, extra=3)")] == {"parameters": 24, "flops": 42}
    assert "costs" not in json_of("mutations", MLP, SHAPE)


def test_a_larger_model_is_listed_in_millions() -> None:
    title, first, *_ = call("mutations", "graphgrow:vgg", "--pass", "widen", "--cost").stdout.splitlines()
    assert title.split() == ["parameters", "MFLOPs", "mutation"]
    graph = gg.trace("graphgrow:vgg")
    cost = graph.cost(graph.mutations("widen")[0])
    assert first.split(maxsplit=2) == [
        f"{cost.parameters:+,}",
        f"{cost.flops / 1e6:+,.3f}",
        str(graph.mutations("widen")[0]),
    ]
