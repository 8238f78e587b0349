"""The exporter's clean-up takes 1e-10 for 0 and 1.000005 for 1, and leaves `x + 1e-10` out; here it does not.

What stands in front of a logarithm or below a line is there for the inputs on which it matters: `p * log(p + 1e-10)` is
0 at 0, and not NaN.
"""

from __future__ import annotations

import importlib
import math
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_MODULE = "onnxscript.rewriter._matcher"
_RELATIVE = 2.0**-23  # one ulp of float32, in which constants such as 1/6 are stored


@contextmanager
def constants_taken_exactly() -> Iterator[None]:
    """While inside, let a pattern's constant match a number of the program that is the same to one ulp of float32.

    Where an onnxscript compares them elsewhere, nothing is changed; the comparison with torch stays what decides.
    """
    try:
        matcher: Any = importlib.import_module(_MODULE)
        original = matcher.math
    except (ImportError, AttributeError):
        yield
        return
    matcher.math = types.SimpleNamespace(**{**vars(math), "isclose": _is_same})
    try:
        yield
    finally:
        matcher.math = original


def _is_same(a: float, b: float, *, rel_tol: float = 1e-9, abs_tol: float = 0.0) -> bool:
    return math.isclose(a, b, rel_tol=min(rel_tol, _RELATIVE), abs_tol=0.0)
