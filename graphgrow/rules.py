"""All that the author of an axis rule needs, in one place.

    from graphgrow.rules import Call, Fresh, RuleDeclined, Value, axis_rule, flow

`axis_rule` registers a rule, which is called with a `Call` and the arguments of its operator, tensors as `Value`s;
`flow` has the expressions by which it says how new units get from them to its output, `Fresh` how new entries of a
parameter start, and `RuleDeclined` says no. docs/writing_rules.md has examples.
"""

from __future__ import annotations

from graphgrow.ir import flow
from graphgrow.ir.facts import NormKind, StatisticKind
from graphgrow.ir.value import Fresh, Value
from graphgrow.ops.call import Call, RuleDeclined
from graphgrow.ops.registry import axis_rule

__all__ = ["Call", "Fresh", "NormKind", "RuleDeclined", "StatisticKind", "Value", "axis_rule", "flow"]
