"""Small live modules that a graph may hold beside those of torch.nn."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from graphgrow.errors import ModeError


class ScaledDotProductAttention(nn.Module):
    """`F.scaled_dot_product_attention`, with its dropout live: active in train mode alone.

    Attributes:
        dropout_p: probability with which an attention weight is dropped in train mode.
        is_causal: whether position i sees positions up to i only.
        scale: factor on the scores; None is 1 / sqrt(head width).
        enable_gqa: whether several query heads share one key and value head.
    """

    def __init__(
        self, dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False
    ) -> None:
        super().__init__()
        self.dropout_p, self.is_causal, self.scale, self.enable_gqa = dropout_p, is_causal, scale, enable_gqa

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(..., L, D), (..., S, D), (..., S, V) -> (..., L, V)."""
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=attn_mask,
            dropout_p=self.dropout_p if self.training else 0.0,
            is_causal=self.is_causal,
            scale=self.scale,
            enable_gqa=self.enable_gqa,
        )

    def extra_repr(self) -> str:
        """The options, for printing."""
        return f"dropout_p={self.dropout_p}, is_causal={self.is_causal}, scale={self.scale}"


@fx.node.has_side_effect  # so that a node without readers stays
def require_same(value: Any, captured: Any, name: str) -> None:
    """Refuse a call with another value of an input that the graph was specialised to.

    Raises:
        ValueError: if the value is not the one of the capture.
    """
    same = value is captured if captured is None or isinstance(value, torch.Tensor) else value == captured
    if not same:
        raise ValueError(
            f"the graph was captured with {name}={captured!r} and holds for that alone, not for {value!r:.60}; "
            "capture it again with example inputs that have the new value"
        )


@fx.node.has_side_effect
def require_decision(value: Any, decided: Any, line: str) -> None:
    """Refuse a call with sizes by which the model would decide otherwise than it did on the example inputs.

    Raises:
        ValueError: if what it decides by is another.
    """
    if value != decided:
        raise ValueError(
            f"at {line} the model decides by the sizes of its inputs: the graph holds where that gives {decided!r}, "
            f"not {value!r}; capture it again with example inputs of the new sizes"
        )


@fx.node.has_side_effect
def require_dtypes(value: Any, decided: Any, line: str) -> None:
    """Refuse a call with dtypes by which the model would decide otherwise than it did on the example inputs.

    Under `torch.autocast`, where the dtypes of values are those of their operators, the graph goes the example's way.

    Args:
        value: what it decides by.
        decided: what that was on the example; as a list, all that it may be.
        line: where it decides.

    Raises:
        ValueError: if what it decides by is another.
    """
    autocast = any(map(torch.is_autocast_enabled, ("cpu", "cuda", "mps", "xpu")))
    admitted = decided if isinstance(decided, list) else [decided]
    if value not in admitted and not autocast:
        known = " or ".join(map(_in_words, admitted))
        raise ValueError(
            f"at {line} the model decides by the dtypes of its tensors: the graph holds where that gives {known}, "
            f"not {_in_words(value)}; capture it again with the model and its example inputs in the new dtype"
        )


def _in_words(value: Any) -> str:
    """A value in one piece where all of its parts are one."""
    return repr(value[0]) if isinstance(value, tuple) and len(set(value)) == 1 else repr(value)


def form_of(value: Any) -> str:
    """The form of an input as text: containers and objects with `*` for each tensor, all else as it prints."""
    if isinstance(value, torch.Tensor):
        return "*"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return f"{type(value).__name__}({', '.join(f'{name}={form_of(item)}' for name, item in fields)})"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        pairs = zip(value._fields, value, strict=True)
        return f"{type(value).__name__}({', '.join(f'{name}={form_of(item)}' for name, item in pairs)})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {form_of(item)}' for key, item in value.items())}}}"
    if isinstance(value, (list, tuple)):
        inner = ", ".join(map(form_of, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    return repr(value)


@fx.node.has_side_effect
def require_form(value: Any, form: str, name: str) -> None:
    """Refuse a call with an input of another form than that of the capture: other keys, lengths, flags or numbers.

    Raises:
        ValueError: if the form is another.
    """
    found = form_of(value)
    if found != form:
        raise ValueError(
            f"the graph holds for {name} of the form {form:.200}, not {found:.200}; capture it again with example "
            "inputs of the new form"
        )


@fx.node.has_side_effect
def require_sizes(value: torch.Tensor, sizes: tuple[int | None, ...], name: str) -> None:
    """Refuse a call with other sizes than those that the graph holds for; None is any size.

    Raises:
        ValueError: if the shape is another.
    """
    fits = value.dim() == len(sizes) and all(w is None or w == n for w, n in zip(sizes, value.shape, strict=True))
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in sizes)
        raise ValueError(
            f"the graph holds for {name} of shape ({wanted}), not {tuple(value.shape)}; capture it again with example "
            "inputs of the new sizes"
        )


class OneMode(nn.Module):
    """The check of a graph that holds in one mode alone; it reads nothing and puts out nothing.

    It stands below the module whose forward goes another way in the other mode, and so is told of that module's train()
    and eval().

    Args:
        holds_in_train: whether the mode is train mode; else it is eval mode.
        owner: the path of the module whose mode decides; empty for the whole model.

    Attributes:
        holds_in_train: as given.
        owner: as given.
        lifted: whether it checks nothing, as where two graphs of that mode are compared.
    """

    _is_impure = True  # so that torch.fx keeps a node without readers

    def __init__(self, holds_in_train: bool, owner: str = "") -> None:
        super().__init__()
        self.holds_in_train, self.owner, self.lifted = holds_in_train, owner, False

    def forward(self) -> None:
        """Refuse to go on in the other mode.

        Raises:
            ModeError: if the module is in the other mode.
        """
        if self.training is not self.holds_in_train and not self.lifted:
            mode, other = ("train", "eval") if self.holds_in_train else ("eval", "train")
            whose = f"`{self.owner}` is" if self.owner else "it is"
            raise ModeError(
                f"the graph holds for {mode} mode alone, in which the model was captured, and {whose} in {other} mode: "
                f"call {mode}(), or capture it in {other} mode: model.{other}() before gg.trace"
            )

    def extra_repr(self) -> str:
        """The mode, for printing."""
        return f"holds_in_train={self.holds_in_train}, owner={self.owner!r}"


class ByMode(nn.Module):
    """One value in train mode and another in eval mode: where a forward goes two ways and comes together again."""

    def forward(self, in_train: torch.Tensor, in_eval: torch.Tensor) -> torch.Tensor:
        """Two of one shape and dtype -> one of them."""
        return in_train if self.training else in_eval


class CopyInOneMode(nn.Module):
    """`buffer.copy_(value)` in one mode alone: what a forward keeps of its inputs while it trains.

    Args:
        in_train: whether that mode is train mode.
    """

    inplace = True

    def __init__(self, in_train: bool = True) -> None:
        super().__init__()
        self.in_train = in_train

    def forward(self, buffer: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Two of one shape -> the first, overwritten or not."""
        return buffer.copy_(value) if self.training == self.in_train else buffer

    def extra_repr(self) -> str:
        """The mode, for printing."""
        return f"in_train={self.in_train}"


class RootMeanSquareNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * w over the last axis, with the casts that language models make around it.

    For inputs up to float32 it is, to the bit, the formula that it stands for.

    Args:
        width: C, or None for a norm without a weight.
        eps: added to the mean of squares.
        offset: added to the weight: 1 for norms that scale by 1 + w.
        upcast: whether statistics and scaling are computed in float32 at least, or in the input's dtype.
        cast_last: whether the result is scaled in float32 and cast to the input's dtype then, or cast before that.
        stays_wide: whether it is never cast back.

    Attributes:
        weight: (C,), or None.
    """

    def __init__(
        self,
        width: int | None,
        eps: float = 1e-6,
        offset: float = 0.0,
        upcast: bool = True,
        cast_last: bool = False,
        stays_wide: bool = False,
    ) -> None:
        super().__init__()
        start = 0.0 if offset else 1.0
        self.width = width
        self.weight: nn.Parameter | None
        self.register_parameter("weight", None if width is None else nn.Parameter(torch.full((width,), start)))
        self.eps, self.offset, self.upcast, self.cast_last, self.stays_wide = eps, offset, upcast, cast_last, stays_wide

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(..., C) -> (..., C)."""
        wide = input.to(torch.promote_types(input.dtype, torch.float32)) if self.upcast else input
        normal = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        result = wide.dtype if self.stays_wide else input.dtype
        if self.weight is None:
            return normal.to(result)
        if self.cast_last:
            weight = self.weight.to(wide.dtype)
            return (normal * (self.offset + weight if self.offset else weight)).to(result)
        weight = self.offset + self.weight if self.offset else self.weight
        return weight * normal.to(result)

    def extra_repr(self) -> str:
        """The options, for printing."""
        casts = f"upcast={self.upcast}, cast_last={self.cast_last}, stays_wide={self.stays_wide}"
        return f"{self.width}, eps={self.eps}, offset={self.offset}, {casts}"


class Gate(nn.Module):
    """A learned factor on a whole tensor, zero at the start: a closed connection whose factor has a gradient.

    Attributes:
        gate: the factor, a scalar parameter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Gate * input, of the input's shape."""
        return self.gate * input


class Blend(nn.Module):
    """A trainable passage from one activation to another: (1 - s) old(x) + s new(x), with s = 0 at the start.

    With s = 0 it is the old activation to the bit wherever the new one is finite; with s = 1 the new one.

    Args:
        old: the present activation.
        new: the one to come.

    Attributes:
        s: the share of the new activation, a scalar parameter.
    """

    def __init__(self, old: nn.Module, new: nn.Module) -> None:
        super().__init__()
        self.old = old
        self.new = new
        self.s = nn.Parameter(torch.zeros(()))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Of the input's shape."""
        blended: torch.Tensor = (1 - self.s) * self.old(input) + self.s * self.new(input)
        return blended


class Router(nn.Module):
    """The shares of a mixture of experts: a softmax over the `top_k` largest scores, zero for all others.

    The shares of the chosen ones add up to 1, as if a softmax over all were normalised again over them (Jiang et al.,
    "Mixtral of experts", 2024, arXiv:2401.04088).

    Args:
        width: of a token.
        experts: how many there are.
        top_k: how many are chosen for a token.

    Attributes:
        weight: of the scores, shape (experts, width).
    """

    def __init__(self, width: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.width, self.experts, self.top_k = width, experts, top_k
        self.weight = nn.Parameter(torch.empty(experts, width))
        nn.init.normal_(self.weight, std=width**-0.5)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(..., width) -> (..., experts)."""
        scores = F.linear(input, self.weight)
        chosen = scores.topk(self.top_k, dim=-1)
        return torch.zeros_like(scores).scatter(-1, chosen.indices, torch.softmax(chosen.values, dim=-1))

    def extra_repr(self) -> str:
        """The options, for printing."""
        return f"width={self.width}, experts={self.experts}, top_k={self.top_k}"


@fx.node.has_side_effect  # it may write into an input or a buffer
def set_item(input: torch.Tensor, index: Any, value: Any) -> torch.Tensor:
    """`input[index] = value`, as an operator that returns the input."""
    input[index] = value
    return input


class Zeros(nn.Module):
    """Zero, whatever comes in: the operator of a connection that carries nothing."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Zeros of the input's shape."""
        return torch.zeros_like(input)


class Choice(nn.Module):
    """A choice between the values of several operators: their sum, weighted by w(alpha).

    With the probabilities q = softmax(alpha / temperature), the anchor e (one operator) and the share `opened` t,

        w = (1 - t) e + t q + (q - q.detach()).

    The last term is zero, and has the gradient of q: while the choice is closed (t = 0) the weights are those of the
    anchor, to the bit and in both modes, and yet alpha learns as if it were open (a straight-through gradient). Open
    (t = 1) it is the softmax of DARTS (Liu et al., 2019, arXiv:1806.09055), or in training, with `gumbel` noise, a
    sample of the Gumbel softmax (Jang et al., 2017, arXiv:1611.01144; Maddison et al., 2017, arXiv:1611.00712).

    Args:
        names: of the operators; the first is the one that was there before.

    Attributes:
        names: as given.
        alpha: the architecture parameters, of shape (choices,).
        opened: the share t, a scalar parameter.
        anchor: one-hot, of shape (choices,).
        temperature: of the softmax, a scalar.
        gumbel: factor on the noise in train mode; 0 for none.
        hard: whether a sample is one-hot, with the gradient of the soft one.
        straight: whether the last term is there; without it the gradient is that of the function.
    """

    anchor: torch.Tensor
    temperature: torch.Tensor

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names = names
        self.gumbel, self.hard, self.straight = 0.0, False, True
        self.alpha = nn.Parameter(torch.zeros(len(names)))
        self.opened = nn.Parameter(torch.zeros(()))
        self.register_buffer("anchor", torch.zeros(len(names)))
        self.register_buffer("temperature", torch.ones(()))
        self.start()

    def start(self) -> None:
        """Closed on the first operator; behind the closed door all are equally probable."""
        with torch.no_grad():
            self.alpha.zero_()
            self.temperature.fill_(1.0)
        self.close(0)

    def close(self, place: int) -> None:
        """Give all the weight to one operator."""
        with torch.no_grad():
            self.opened.zero_()
            self.anchor.zero_()[place] = 1.0

    def weights(self) -> torch.Tensor:
        """One weight for each operator, of shape (choices,)."""
        logits: torch.Tensor = self.alpha
        if self.training and self.gumbel:
            uniform = torch.rand_like(self.alpha).clamp(1e-6, 1 - 1e-6)
            logits = logits - self.gumbel * torch.log(-torch.log(uniform))
        soft = torch.softmax(logits / self.temperature, 0)
        value = soft.detach()
        if self.training and self.hard:
            value = F.one_hot(value.argmax(), len(self.names)).to(value)
        value = value if self.straight else soft
        weights = (1 - self.opened) * self.anchor + self.opened * value
        return weights + (soft - soft.detach()) if self.straight else weights

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        """One value for each operator, all of one shape."""
        weights = self.weights()
        total = weights[0] * values[0]
        for place in range(1, len(values)):
            total = total + weights[place] * values[place]
        return total

    def extra_repr(self) -> str:
        """The operators, for printing."""
        return ", ".join(self.names)
