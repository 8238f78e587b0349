"""The mistakes: in which file, what stands there, and what is put in its place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutant:
    """One mistake.

    Attributes:
        path: of the source, from the top of the repository.
        old: text that stands there once.
        new: what takes its place.
        also: tests that are run besides those that mirror the source.
    """

    path: str
    old: str
    new: str
    also: tuple[str, ...] = ()

    @property
    def tests(self) -> tuple[str, ...]:
        """The mirrored test file, where there is one, and others."""
        folder, name = PurePath(self.path).parent, PurePath(self.path).name
        inner = PurePath(*folder.parts[1:]) if folder.parts[0] == "graphgrow" else folder
        mirrored = PurePath("tests", inner, f"test_{name}")
        return tuple(dict.fromkeys((*[str(mirrored)] * (ROOT / mirrored).exists(), *self.also)))


EXACT = ("tests/ops/test_square.py",)
VERIFY = ("tests/verification/test_verify.py",)
WRONG = ("tests/verification/test_wrong_rewrites.py",)
GROWN = ("tests/passes/test_widen.py", "tests/passes/test_split.py", "tests/planning/test_plan.py")

MUTANTS = (
    # passes
    Mutant("passes/widen.py", "if self.extra <= 0:", "if self.extra < 0:", ("tests/bad_input/test_mutations.py",)),
    Mutant("passes/widen.py", "units, Kind.APPEND), generator)", "units, Kind.REPLICATE), generator)"),
    Mutant("passes/widen.py", "max(1, found[0].size // 2)", "max(0, found[0].size // 2)"),
    Mutant("passes/split.py", "if self.copies < 2:", "if self.copies < 1:", ("tests/bad_input/test_mutations.py",)),
    Mutant("passes/split.py", "chosen.repeat(self.copies - 1)", "chosen.repeat(self.copies)"),
    Mutant("passes/split.py", "not 0 <= unit < group.size", "not 0 <= unit <= group.size", ("tests/bad_input/test_mutations.py",)),
    Mutant("passes/split.py", "self.units or range(group.size)", "self.units or range(1)"),
    Mutant("passes/add_branch.py", "if any(step != 1 for step in stride):", "if any(step > 2 for step in stride):"),
    Mutant("passes/add_branch.py", "biased = isinstance(norm, nn.Identity)", "biased = not isinstance(norm, nn.Identity)"),
    Mutant("passes/add_branch.py", "hidden = inputs if kind ==", "hidden = outputs if kind =="),
    Mutant("passes/add_branch.py", "if any(2 * p > k for", "if any(p > k for"),
    Mutant("passes/add_heads.py", "return spaces[-1] if self.shared else spaces[0]", "return spaces[0]"),
    Mutant("passes/add_heads.py", "if self.extra <= 0:", "if self.extra < 0:"),
    Mutant("passes/add_skip.py", "if found == NEAREST or source in target.all_input_nodes:", "if found == NEAREST:"),
    Mutant("passes/drop_branch.py", "kept = node.args[1 - operand]", "kept = node.args[operand]"),
    Mutant("passes/drop_branch.py", "if going not in zero_values(network.module):", "if not going:"),
    Mutant("passes/drop_identity.py", "part.p == 0", "part.p >= 0"),
    Mutant("passes/drop_identity.py", "or (bias is not None and bool(bias.any())):", "or False:"),
    Mutant("passes/drop_identity.py", "all(step == 1 for step in part.stride)", "True"),
    Mutant("passes/drop_identity.py", "(part.weight == 1).all()", "(part.weight == 1).any()"),
    Mutant("passes/enlarge_kernel.py", "(new - size) % 2]", "(new - size) % 3]"),
    Mutant("passes/enlarge_kernel.py", "if to <= max(old):", "if to < max(old):"),
    Mutant("passes/fold_batch_norm.py", "norm.running_var.double() + norm.eps", "norm.running_var.double()"),
    Mutant("passes/fold_batch_norm.py", "old * gain + shift", "old + shift"),
    Mutant("passes/fold_batch_norm.py", "shift = -norm.running_mean.double() * gain", "shift = -norm.running_mean.double()"),
    Mutant("passes/fold_batch_norm.py", "axis = 1 if isinstance(part, _OUT_SECOND) else 0", "axis = 0"),
    Mutant("passes/fold_batch_norm.py", "if len(source.users) > 1:", "if len(source.users) > 2:"),
    Mutant("passes/fold_batch_norm.py", '1 / scale) ** role.order', "1 / scale)"),
    Mutant("passes/merge_units.py", "if set(self.units) & set(self.into):", "if False:"),
    Mutant("passes/merge_units.py", "not 0 <= unit < group.size", "not 0 <= unit <= group.size"),
    Mutant("passes/settle_activation.py", 'part.new if self.keep == "new" else part.old', "part.new"),
    Mutant("passes/shrink_kernel.py", "and not bool(used[size - 1 - ring])", ""),
    Mutant("passes/shrink_kernel.py", "p + d * r < 0", "p + r < 0"),
    Mutant("passes/swap_activation.py", "replace(step, rounded=not _holds(dtype, slope))", "step"),
    Mutant("passes/swap_activation.py", "found.num_parameters > 1", "found.num_parameters > 2"),
    Mutant("passes/upcycle_experts.py", "slice(number, number + 1)", "slice(0, 1)"),
    Mutant("passes/upcycle_experts.py", 'modes = frozenset({"eval"}) if noisy else step.exact_in', "modes = step.exact_in"),
    Mutant("passes/drop_units.py", "not 0 <= unit < group.size", "not 0 <= unit <= group.size"),
    # rules of operators
    Mutant("graphgrow/ops/linear.py", 'call.attribute("in_features", weight.axes[1])', "", GROWN),
    Mutant("graphgrow/ops/linear.py", "call.same(weight.axes[0], bias.axes[0])\n    flow = fl.Mul((call.operand(input, drop=[-1]), call.operand(weight", "pass\n    flow = fl.Mul((call.operand(input, drop=[-1]), call.operand(weight", EXACT),
    Mutant("graphgrow/ops/convolution.py", "if width == 1:\n        call.freeze", "if width == 2:\n        call.freeze", EXACT),
    Mutant("graphgrow/ops/convolution.py", "(0,) if transposed else (1,)", "(1,) if transposed else (0,)", GROWN),
    Mutant("graphgrow/ops/convolution.py", 'call.attribute("groups", _groups_term(call, input, module.groups, channel))', "pass", EXACT),
    Mutant("graphgrow/ops/normalisation.py", "int(over_batch)]", "0]", EXACT),
    Mutant("graphgrow/ops/normalisation.py", 'call.parameter("running_var", Fresh.ONES)', 'call.parameter("running_var", Fresh.ZEROS)', EXACT),
    Mutant("graphgrow/ops/normalisation.py", 'return _normalise_last(call, NormKind.LAYER,', 'return _normalise_last(call, NormKind.RMS,', EXACT),
    Mutant("graphgrow/ops/normalisation.py", 'call.attribute("num_groups", *group)', "pass", EXACT),
    Mutant("graphgrow/ops/joins.py", "if i != index:\n                call.same", "if i > index:\n                call.same", EXACT),
    Mutant("graphgrow/ops/joins.py", "tuple(spaces[:i]), space)", "tuple(spaces[: i + 1]), space)", EXACT),
    Mutant("graphgrow/ops/embedding.py", 'call.freeze([weight.axes[0]], "a table that is indexed by position")\n    if max_norm', 'if max_norm', EXACT),
    Mutant("graphgrow/ops/padding.py", "linear = not varies(value) and not plain(value)", "linear = True", EXACT),
    Mutant("graphgrow/ops/reductions.py", 'call.freeze([input.axes[call.axis(input, chosen)]], "a softmax over it")', "call.axis(input, chosen)", EXACT),
    Mutant("graphgrow/ops/reductions.py", 'call.freeze((input.axes[i] for i in dims), "reduced over")\n    axes = _reduced(call, input, dims, keepdim)\n    flow =', "axes = _reduced(call, input, dims, keepdim)\n    flow =", EXACT),
    # rewriting
    Mutant("graphgrow/rewrite/tensors.py", "draw = torch.rand(whole.shape, generator=generator, dtype=torch.float32)", "draw = torch.full(whole.shape, 0.5)", ("tests/verification/test_alive.py", *GROWN)),
    Mutant("graphgrow/rewrite/tensors.py", "whole.sub_(part))", "whole)", GROWN),
    Mutant("graphgrow/rewrite/tensors.py", "new / self.scale**role.order", "new / self.scale", ("tests/rewrite/test_optimizer.py",)),
    Mutant("graphgrow/rewrite/tensors.py", "before.mean(growth.axis, keepdim=True) if role.averaged else 0.0", "0.0", ("tests/rewrite/test_optimizer.py",)),
    Mutant("graphgrow/rewrite/tensors.py", "(self.offset + new) * self.scale - self.offset if self.offset else", "", GROWN),
    Mutant("graphgrow/rewrite/tensors.py", "return math.sqrt(2.0 / max(fan, 1))", "return math.sqrt(1.0 / max(fan, 1))", GROWN),
    Mutant("graphgrow/planning/evaluate.py", 'if Fill.SHARE in state:\n        raise fl.Clash("shares minus their mean")', "", ("tests/ops/test_reductions.py", "tests/planning/test_plan.py")),
    Mutant("graphgrow/planning/evaluate.py", "if fill in (Fill.COPY, Fill.SHARE, Fill.NULL) else Fill.ZERO", "if fill in (Fill.COPY, Fill.SHARE, Fill.NULL) else Fill.FREE", ("tests/planning/test_plan.py", *GROWN)),
    Mutant("graphgrow/rewrite/resize.py", "if predicted and predicted != found:", "if False:", ("tests/rewrite/test_shapes.py", "tests/planning/test_plan.py")),
    Mutant("graphgrow/planning/statistics.py", "if math.isinf(statistic.parameter) else ratio ** (-1 / statistic.parameter)", "if math.isinf(statistic.parameter) else ratio", ("tests/ops/test_reductions.py", *EXACT)),
    Mutant("graphgrow/planning/statistics.py", "(old * ratio - correction) / (old - correction)", "ratio", ("tests/ops/test_reductions.py", *EXACT)),
    Mutant("graphgrow/rewrite/optimizer.py", "self._optimizer.state.pop(parameter, None)\n                state =", "state ="),
    Mutant("graphgrow/rewrite/optimizer.py", "group[\"params\"][position] = heir", "pass"),
    Mutant("graphgrow/network/overflow.py", "return denominator in reached and not _keeps_from_zero(denominator, ranges)", "return False"),
    Mutant("graphgrow/ir/bounds.py", "whole and exponent % 2 == 0", "whole", ("tests/network/test_overflow.py",)),
    Mutant("graphgrow/rewrite/apply.py", "if suspect and bool(torch.isnan(old).any()):", "if False:", ("tests/bad_input/test_mutations.py",)),
    Mutant("graphgrow/rewrite/apply.py", 'f"{seed}:{position}:{text}"', 'f"{seed}:{text}"'),
    Mutant("graphgrow/rewrite/erase.py", "(others or not kept.op", "(not kept.op", ("tests/passes/test_drop_identity.py",)),
    # checking
    Mutant("graphgrow/verification/outputs.py", "slack * largest(a - c) + unit * largest(a)", "1e6 * unit * largest(a)", VERIFY),
    Mutant("graphgrow/verification/outputs.py", 'worst.differ(f"output{of} (structure)")\n        return', "return", VERIFY),
    Mutant("graphgrow/verification/outputs.py", "worst.see((a != b).double(), (a != c).double(), where)", "pass", VERIFY),
    Mutant("graphgrow/verification/worst.py", "passed = bool((error <= limit).all())", "passed = not bool((error > limit).any())", VERIFY),
    Mutant("graphgrow/verification/worst.py", "self.passed = self.passed and passed", "self.passed = passed", VERIFY),
    Mutant("graphgrow/verification/worst.py", "(torch.isnan(actual) & torch.isnan(expected))", "torch.isnan(actual)", VERIFY),
    Mutant("graphgrow/verification/kept.py", 'for what in ("requires_grad", "dtype", "device"):', 'for what in ("dtype", "device"):', WRONG),
    Mutant("graphgrow/verification/kept.py", "if _ties(before, shared) != _ties(after, shared):", "if False:", WRONG),
    Mutant("graphgrow/verification/numbers.py", "number.clone()", "number", VERIFY),
    Mutant("graphgrow/verification/squares.py", "LOCAL_TOLERANCE = 1e-12", "LOCAL_TOLERANCE = 1e-5", VERIFY),
    Mutant("graphgrow/verification/planted.py", "new[place] * (1 + PLANTED)", "new[place]", VERIFY),
    Mutant("graphgrow/verification/alive.py", "if here > STILL * top and", "if here > 0 and"),
    Mutant("graphgrow/verification/alive.py", "result.failing <= again.failing", "True"),
)  # fmt: skip
