"""Models that print as the code that makes them, weights and example inputs included."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

VOCABULARY = 5


class Written(nn.Module):
    """A module that remembers what it was made with."""

    made_with: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Written:
        """Keep the arguments, aside from what nn.Module manages."""
        self = super().__new__(cls)
        self.__dict__["made_with"] = (args, kwargs)
        return self


def code(thing: Any) -> str:
    """An expression that makes a module, or any other value; torch's own modules print as nearly that."""
    if isinstance(thing, Written):
        args, kwargs = thing.made_with
        return (
            f"{type(thing).__name__}({', '.join([*map(code, args), *(f'{k}={code(v)}' for k, v in kwargs.items())])})"
        )
    if isinstance(thing, nn.Sequential):
        return f"nn.Sequential({', '.join(map(code, thing))})"
    if isinstance(thing, nn.MultiheadAttention):
        return f"nn.MultiheadAttention({thing.embed_dim}, {thing.num_heads}, batch_first={thing.batch_first})"
    if isinstance(thing, nn.Module):
        return f"nn.{thing!r}"
    if isinstance(thing, (list, tuple)):
        inner = ", ".join(map(code, thing))
        return f"[{inner}]" if isinstance(thing, list) else f"({inner}{',' * (len(thing) == 1)})"
    return repr(thing)


class Model(NamedTuple):
    """A model in eval mode and float64 with its example inputs: one tensor, or several."""

    module: nn.Module
    inputs: Any

    def __repr__(self) -> str:
        several = isinstance(self.inputs, tuple)
        tensors = self.inputs if several else (self.inputs,)
        examples = [
            f"{'noise' if t.is_floating_point() else 'tokens'}({tuple(t.shape)}, {seed})"
            for seed, t in enumerate(tensors)
        ]
        inputs = f"({', '.join(examples)})" if several else examples[0]
        return f"Model(stirred({code(self.module)}, {self.module.stirred_with}), {inputs})"


def noise(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tokens(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Whole numbers below `VOCABULARY`, of which the first is the largest."""
    drawn = torch.randint(0, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))
    drawn.view(-1)[0] = VOCABULARY - 1
    return drawn


def stirred(model: nn.Module, seed: int) -> nn.Module:
    """The model in float64 and eval mode with weights of that seed; norms and statistics are not trivial."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    done: set[int] = set()
    with torch.no_grad():
        for part in model.modules():
            norm = "Norm" in type(part).__name__
            for name, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
                if not tensor.is_floating_point() or id(tensor) in done:
                    continue
                done.add(id(tensor))
                if norm and name not in ("bias", "running_mean"):
                    tensor.uniform_(0.5, 1.5, generator=generator)
                else:
                    fan = tensor[0].numel() if tensor.dim() > 1 else 1
                    tensor.normal_(0.0, fan**-0.5 if tensor.dim() > 1 else 0.5, generator=generator)
    model.__dict__["stirred_with"] = seed
    return model
