"""Every snippet, command and link in the README and in docs/ works as it stands."""

from __future__ import annotations

import contextlib
import doctest
import inspect
import io
import re
import shlex
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main

import graphgrow as gg
from graphgrow.cli.main import app
from graphgrow.models.resnet import resnet
from graphgrow.ops import registry
from graphgrow.rewrite import registry as passes
from graphgrow.store.names import import_torchvision

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SKETCHES = {
    # By the first line of a snippet that stands in the middle of something: what is there before it.
    "grower = gg.Grower(graph, optimizer,": """
        import torch
        from torch.nn import functional as F
        from graphgrow.models import MLP
        torch.manual_seed(0)
        graph = gg.trace(MLP(channels=1, image_size=4, hidden=(5,), classes=3), torch.randn(2, 1, 4, 4))
        optimizer = torch.optim.Adam(graph.module.parameters(), 1e-2)
        epochs, batches = 1, [(torch.randn(8, 1, 4, 4), torch.randint(3, (8,))) for _ in range(2)]
        validation_loss = lambda module: F.cross_entropy(module(batches[0][0]), batches[0][1]).item()
    """,
    "@dataclass(frozen=True)": """
        from collections.abc import Iterator
        from dataclasses import dataclass
        from typing import ClassVar
        import torch
        from graphgrow.ir.editor import Editor
        from graphgrow.rewrite.contract import Mutation, Refusal, TensorChange
        from graphgrow.network.network import Network, Step
    """,
    "def rewrite(self, network, editor, generator):": """
        from torch import nn
        from graphgrow.blocks.residual import MlpBlock
        from graphgrow.rewrite.insert import Insertion
        width, hidden, norm, activation = 4, 8, nn.LayerNorm(4), nn.GELU()
    """,
    "@rule(nn.Linear)": """
        from torch import nn
        from graphgrow.ir import flow as fl
        from graphgrow.ir.value import Fresh, Value
        from graphgrow.ops.call import Call
        rule = lambda *targets: lambda function: function  # the real one has it already
    """,
}
SKETCHES["model = Growing("] = """
    import torch
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
    from graphgrow.callbacks.transformers import GrowthCallback
    from graphgrow.train.growing import Growing
    from graphgrow.train.schedule import Plateau
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    )
    ids, labels = torch.randint(20, (8, 4)), torch.randint(2, (8,))
    data = held_out = [{"input_ids": row, "labels": label} for row, label in zip(ids, labels)]
    quiet = {"save_strategy": "no", "report_to": [], "disable_tqdm": True, "use_cpu": True}
    args = TrainingArguments("out", num_train_epochs=1, eval_strategy="epoch", **quiet)
"""
SKETCHES["self.net = Growing("] = """
    import torch
    from torch.nn import functional as F
    from functools import partial
    from lightning.pytorch import LightningModule, Trainer
    from graphgrow.callbacks.lightning import GrowthCallback
    from graphgrow.train.growing import Growing
    class Model(LightningModule):
        def training_step(self, batch, number):
            return F.cross_entropy(self.net(batch[0]), batch[1])
        def validation_step(self, batch, number):
            self.log("val_loss", self.training_step(batch, number))
        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), 1e-2)
    torch.manual_seed(0)
    self = model = Model()
    example, net = torch.randn(8, 3), torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    data = torch.utils.data.TensorDataset(example, torch.randint(2, (8,)))
    batches = held_out = torch.utils.data.DataLoader(data, 8)
    Trainer = partial(Trainer, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
"""
EXTRAS = {
    "model = Growing(": "accelerate",
    "self.net = Growing(": "lightning",
    "import torch\nfrom torchvision": "torchvision",
    "import torch\nfrom transformers": "transformers",
    "import torch\nfrom torch import nn\nfrom transformers": "transformers",
}
FOLLOWING = {
    # By the first line of a snippet that only defines something: a use of it, which must go through.
    "@rule(nn.Linear)": """
        import torch
        gg.axis_rule(nn.Linear, replace=True)(linear_module)
        report = gg.check_rule(lambda draw: (nn.Linear(n := draw(1, 4), draw(1, 4)), torch.randn(2, n)), cases=4)
        assert report.right, report
    """,
    "def rewrite(self, network, editor, generator):": """
        import torch
        from types import SimpleNamespace
        from graphgrow.ir.editor import Editor
        network = gg.trace(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), torch.zeros(2, 4))
        step, _ = rewrite(SimpleNamespace(site="0", name="doc"), network, Editor(network.module), torch.Generator())
        assert step.moved.keys() == {network.sites.find("0").name}
    """,
    "import torch\nfrom torch import nn\nimport graphgrow as gg\nfrom graphgrow.rules": """
        graph = gg.trace(nn.Sequential(nn.Linear(3, 4), Scale(4), nn.Linear(4, 2)), torch.randn(2, 3))
        assert gg.verify(graph, gg.apply(graph, "widen(0, extra=2)")).preserved
    """,
}


def snippets() -> Iterator[Any]:
    for page in PAGES:
        for found in re.finditer(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
            line = page.read_text(encoding="utf-8")[: found.start()].count("\n") + 1
            yield pytest.param(found[1], id=f"{page.name}:{line}")


def around(table: dict[str, str], snippet: str) -> str:
    return inspect.cleandoc(next((text for start, text in table.items() if snippet.startswith(start)), ""))


@pytest.mark.parametrize("snippet", [*snippets()])
def test_a_snippet_runs(snippet: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if extra := around(EXTRAS, snippet):
        import_torchvision()
        pytest.importorskip(extra)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_RULES", registry.registered())  # a rule that a snippet adds ends with it
    monkeypatch.setattr(passes, "_OWN", {})  # and a pass
    module = types.ModuleType("snippet")
    monkeypatch.setitem(sys.modules, "snippet", module)
    names = vars(module)
    names["gg"] = gg
    written = [line.removeprefix(">>> ") for line in snippet.splitlines() if line.startswith(">>> ")]
    shown = "".join(line for line in snippet.splitlines(keepends=True) if not line.startswith(">>> "))
    printed = io.StringIO()
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(printed):
        exec(around(SKETCHES, snippet), names)
        exec("from __future__ import annotations\n" + ("\n".join(written) if written else snippet), names)
        exec(around(FOLLOWING, snippet), names)
    alike = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert not written or doctest.OutputChecker().check_output(shown, printed.getvalue(), alike), printed.getvalue()


def examples() -> list[str]:
    """The functions whose docstring holds an example."""
    return [name for name in gg.__all__ if inspect.isfunction(getattr(gg, name)) and example(name)]


def example(name: str) -> str:
    words, *_ = re.split(
        r"^(?:Args|Returns|Raises):$", inspect.cleandoc(getattr(gg, name).__doc__ or ""), flags=re.MULTILINE
    )
    lines = words.splitlines()
    return inspect.cleandoc("\n" + "\n".join(line for line in lines if line.startswith("    ")))


@pytest.fixture(scope="module")
def around_examples(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("examples")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        small, large = resnet(width=8).eval(), resnet(width=16, depth=3).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    graph = gg.trace(small, images)
    grown = gg.apply(graph, "widen(stem, extra=8)")
    for network, name in ((graph, "before"), (grown, "grown")):
        gg.export_onnx(network, folder / f"{name}.onnx")
    return {"model": small, "small": small, "large": large, "images": images, "graph": graph, "grown": grown}, folder


@pytest.mark.parametrize("name", examples())
def test_an_example_in_a_docstring_runs(
    name: str, around_examples: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    names, folder = around_examples
    monkeypatch.chdir(folder)
    optimizer = torch.optim.SGD(names["graph"].module.parameters(), 1e-2)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(example(name), {**names, "gg": gg, "torch": torch, "optimizer": optimizer})


def commands(start: str) -> list[Any]:
    """The lines of indented blocks that begin with a word."""
    lines = {
        (line.strip().partition("  #")[0], page.name)
        for page in PAGES
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith(f"    {start} ")
    }
    return [pytest.param(shlex.split(line), id=line) for line, _ in sorted(lines)]


@pytest.mark.parametrize("words", commands("graphgrow"))
def test_a_command_has_these_options(words: list[str]) -> None:
    group: Any = typer.main.get_command(app)
    command = group.commands[words[1]]
    command.make_context(words[1], [word for word in words[2:] if word != "NAME"])  # refuses what it does not know


@pytest.mark.parametrize("words", [*commands("python"), *commands("pytest")])
def test_what_a_command_runs_is_there(words: list[str]) -> None:
    assert (ROOT / words[1]).exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere_and_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert [name for name in set(re.findall(r"\bgg\.([A-Za-z_]+)", text)) if not hasattr(gg, name)] == []
