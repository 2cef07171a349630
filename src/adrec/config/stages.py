"""ADRec's stages: what each of the three may be, and the default's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

from adrec.config.catalogue import BucketsConfig, RowsConfig
from adrec.config.parsing import group, require
from adrec.config.stage import StageConfig


@dataclass(frozen=True)
class CatalogueStageConfig(StageConfig):
    """A stage with a cross-entropy over the catalogue.

    Attributes:
        consistency: the weight of the R-Drop consistency loss (arXiv 2106.14448); 0 is one pass. Two passes over each
            batch, with different dropout, are trained to predict alike. Training takes twice as long.
        negatives: items sampled for a step's softmax, besides those of the batch; 0 is the whole catalogue. Sampling is
            faster if the catalogue is large.
        rows: train only the embedding rows of a step's items and negatives: its cost does not depend on the catalogue.
        buckets: each token's softmax is over items near to it (SCE, arXiv 2409.18721), found anew in every step.
    """

    consistency: float = 0.0
    negatives: int = 0
    rows: RowsConfig | None = group(RowsConfig())
    buckets: BucketsConfig | None = group(BucketsConfig())

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.consistency >= 0, f"consistency of a stage must not be negative; it is {self.consistency}.")
        require(self.negatives >= 0, f"negatives of a stage must not be negative; it is {self.negatives}.")
        if self.rows is not None:
            self._check_rows(self.rows)
        require(
            not (self.buckets is not None and self.rows is not None),
            "buckets are of the whole catalogue, and rows are a part of it; leave one of them out.",
        )
        require(
            not (self.buckets is not None and (self.consistency or self.future_items > 1)),
            "buckets need consistency=0 and future_items=1 in their stage, such as finetune.consistency=0 and "
            "finetune.future_items=1: two passes, or several targets, would not share the items of a softmax.",
        )

    def _check_rows(self, rows: RowsConfig) -> None:
        require(self.epochs > 0, "rows are trained, and the stage has no epochs; leave rows out.")
        require(
            self.learning_rate * self.weight_decay < 1,
            f"weight_decay x learning_rate of a stage with rows must be below 1; it is "
            f"{self.learning_rate * self.weight_decay:g}.",
        )
        require(self.optimizer == "adamw", "rows are trained by AdamW; set optimizer of the stage to 'adamw'.")
        require(
            self.embedding != "decaying",
            "rows train what a step meets, and a decaying embedding decays in every row; set embedding to 'frozen'.",
        )
        require(
            not (rows.sampled_loss == "gbce" and self.consistency),
            "consistency is between two passes' softmaxes, and rows.sampled_loss is 'gbce'; set consistency to 0.",
        )

    def idle(self) -> Mapping[str, str]:
        """Return the keys without effect."""
        found = dict(super().idle())
        if self.rows is not None:
            found["negatives"] = "rows.drawn is the number of a step's negatives"
        if self.buckets is not None:
            found["negatives"] = "buckets have the negatives"
        return found


@dataclass(frozen=True)
class PretrainConfig(CatalogueStageConfig):
    """Stage 1: the item embedding, from co-occurrences alone, or learned by a SASRec.

    Attributes:
        epochs: the largest number of epochs of the SASRec; 0 takes the factorised co-occurrences as they are.
    """

    @property
    def network(self) -> str:
        """The pre-training network; without epochs only the embedding of ADRec's own network is used."""
        return "sasrec" if self.epochs else "adrec"

    def __post_init__(self) -> None:
        require(
            self.epochs != 0 or self.initial_embedding == "cooccurrence",
            "pretrain.epochs is 0, which takes co-occurrences as they are; set pretrain.initial_embedding to "
            "'cooccurrence', or pretrain.epochs to 1 or more.",
        )
        super().__post_init__()

    @property
    def fewest_epochs(self) -> int:
        """The smallest valid value of ``epochs``."""
        return 0

    @property
    def purpose(self) -> str:
        """What the stage does, in a few words for the log."""
        return "learns the item embedding" if self.epochs else "takes the item embedding from co-occurrences"

    def idle(self) -> Mapping[str, str]:
        """Return the keys without effect."""
        if self.epochs:
            return super().idle()
        trained = {each.name for each in fields(self)} - {"epochs", "initial_embedding"}
        return dict.fromkeys(trained, "pretrain.epochs is 0, so nothing is trained in stage 1")


@dataclass(frozen=True)
class ADRecStageConfig(CatalogueStageConfig):
    """Stage 2 or 3: ADRec's own network.

    Attributes:
        start: initial weights of the stage: ``scratch``, ``embedding`` or ``continue``. With ``embedding``, all weights
            are new except the item embedding of the previous stage. ``continue`` takes the previous stage's weights,
            Adam's moments and position in the learning-rate schedule.
        embedding: training of the item embedding: ``train``, ``frozen`` or ``decaying``. A decaying embedding gets no
            gradient, but Adam's L2 term still shrinks it: the published code does so where it says frozen.
        loss: ``ce``, ``mse`` or ``ce+mse``: half of (cross-entropy + ``mse_weight`` x squared error).
        future_items: the number of next items that are targets of a token's cross-entropy; 1 is the next item alone.
        future_decay: the weight of each of these items, relative to the one before.
        mse_weight: the weight of the squared error between ``x0_hat`` and ``x0``.
        pcgrad: project conflicting gradients of the two losses (two backward passes).
    """

    start: Literal["scratch", "embedding", "continue"] = "scratch"
    embedding: Literal["train", "frozen", "decaying"] = "train"
    loss: Literal["ce", "mse", "ce+mse"] = "ce+mse"
    future_items: int = 1
    future_decay: float = 0.3
    mse_weight: float = 1.0
    pcgrad: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not (self.consistency and self.loss == "mse"),
            "consistency is between two passes' cross-entropies, and this loss has none; set loss to 'ce' or 'ce+mse'.",
        )
        require(
            not (self.negatives and self.loss == "mse"),
            "negatives are the cross-entropy's, and this loss has none; set loss to 'ce' or 'ce+mse'.",
        )
        require(self.future_items >= 1, f"future_items of a stage must be at least 1; it is {self.future_items}.")
        require(0 < self.future_decay <= 1, f"future_decay of a stage must be in (0, 1]; it is {self.future_decay}.")
        require(
            not (self.future_items > 1 and self.loss == "mse"),
            "future_items are the cross-entropy's, and this loss has none; set loss to 'ce' or 'ce+mse'.",
        )
        require(
            not (self.future_items > 1 and self.rows is not None and self.rows.sampled_loss == "gbce"),
            "future_items are the softmax's, and rows.sampled_loss is 'gbce'; set future_items to 1.",
        )
        require(
            not (self.buckets is not None and self.loss == "mse"),
            "buckets are the cross-entropy's, and this loss has none; set loss to 'ce' or 'ce+mse'.",
        )
        require(
            not (self.rows is not None and self.loss == "mse"),
            "rows are drawn for the cross-entropy, and this loss has none; set loss to 'ce' or 'ce+mse'.",
        )
        require(self.mse_weight >= 0, f"mse_weight of a stage must not be negative; it is {self.mse_weight}.")
        require(not (self.pcgrad and self.loss != "ce+mse"), "pcgrad needs two losses; set loss to 'ce+mse'.")

    @property
    def network(self) -> str:
        """ADRec's network."""
        return "adrec"

    @property
    def purpose(self) -> str:
        """What the stage does, in a few words for the log."""
        return {
            "train": "trains all weights",
            "frozen": "trains all weights but the item embedding",
            "decaying": "trains all weights but the item embedding, which decays",
        }[self.embedding]

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The training losses and their weights."""
        weights = {"ce": 1.0, "mse": self.mse_weight}
        return {name: weights[name] for name in self.loss.split("+")}

    def idle(self) -> Mapping[str, str]:
        """Return the keys without effect."""
        found = dict(super().idle())
        if self.future_items == 1:
            found["future_decay"] = "the next item is the only target"
        if self.loss == "ce":
            found["mse_weight"] = "the loss has no squared error"
        if self.loss != "ce+mse":
            found["pcgrad"] = "there is one loss"
        return found


# Stage 1 of the default takes the factorised co-occurrences, which cost a second (docs/method.md).
PRETRAIN = PretrainConfig(epochs=0, initial_embedding="cooccurrence")
ALIGN = ADRecStageConfig(
    epochs=2,
    start="embedding",
    embedding="frozen",
    future_items=3,
    mse_weight=0.1,
    optimizer="adamw",
    learning_rate=2e-3,
    weight_decay=0.3,
    beta2=0.98,
    warmup_epochs=1,
    schedule="constant",
    consistency=10.0,
)
FINETUNE = replace(
    ALIGN,
    averaging=0.998,
    epochs=200,
    start="continue",
    embedding="train",
    warmup_epochs=0,
    first_evaluation=1,
    evaluate_every=1,
    patience=3,
)
