"""Losses: one number from all elements, or one for each."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from graphgrow.ir.value import Value
from graphgrow.ops.call import Call, meta_shape
from graphgrow.ops.registry import rule

_WHY = "a loss is taken over it"


@rule(
    F.binary_cross_entropy, F.binary_cross_entropy_with_logits, F.cosine_embedding_loss, F.cross_entropy,
    F.hinge_embedding_loss, F.huber_loss, F.kl_div, F.l1_loss, F.margin_ranking_loss, F.mse_loss,
    F.multi_margin_loss, F.multilabel_margin_loss, F.multilabel_soft_margin_loss, F.nll_loss,
    F.poisson_nll_loss, F.smooth_l1_loss, F.soft_margin_loss, F.triplet_margin_loss,
    F.triplet_margin_with_distance_loss,
    nn.BCELoss, nn.BCEWithLogitsLoss, nn.CosineEmbeddingLoss, nn.CrossEntropyLoss,
    nn.HingeEmbeddingLoss, nn.HuberLoss, nn.KLDivLoss, nn.L1Loss, nn.MarginRankingLoss, nn.MSELoss, nn.NLLLoss,
    nn.MultiLabelMarginLoss, nn.MultiLabelSoftMarginLoss, nn.MultiMarginLoss, nn.PoissonNLLLoss,
    nn.SmoothL1Loss, nn.SoftMarginLoss, nn.TripletMarginLoss,
    nn.TripletMarginWithDistanceLoss,
)  # fmt: skip
def loss(call: Call, *args: Any, **kwargs: Any) -> Value:
    """A mean or a sum over all axes, or a softmax over one: none of them may grow."""
    for value in pytree.tree_leaves((args, kwargs)):
        if isinstance(value, Value):
            call.freeze(value.axes, _WHY)
    return call.output(call.fixed(size, _WHY) for size in meta_shape(call.meta))
