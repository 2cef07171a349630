"""Building blocks of model configurations: a network's settings and a training stage, as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

from adrec.config.catalogue import BucketsConfig, RowsConfig
from adrec.config.parsing import ConfigGroup, require
from adrec.utils.errors import ConfigError

SeenOrData = Literal["data", "keep", "leave-out"]
NO_DIFFUSION = "this model has no diffusion, so it takes no denoising steps and has no sampler."


@dataclass(frozen=True)
class NetworkConfig(ConfigGroup):
    """Settings of every sequence network.

    Attributes:
        hidden_size: D, the width of the item embedding.
        max_length: L, the positions of a sequence that the model sees (the last L items).
    """

    hidden_size: int = 128
    max_length: int = 50

    def __post_init__(self) -> None:
        for name in ("hidden_size", "max_length"):
            require(getattr(self, name) >= 1, f"model.{name} must be at least 1; it is {getattr(self, name)}.")

    @property
    def shortest(self) -> int:
        """The fewest interactions of a training sequence: two, an input and its target."""
        return 2

    def with_inference(self, num_steps: int | None, sampler: Literal["ancestral", "ddim"] | None) -> Self:
        """Return the configuration with another number of denoising steps or another sampler; None keeps a setting.

        Raises :class:`ConfigError` for a number of steps outside 1 to T, or a model without diffusion.
        """
        changes = {"num_inference_steps": num_steps, "sampler": sampler}
        given: dict[str, Any] = {key: value for key, value in changes.items() if value is not None}
        known = {each.name for each in fields(self)}
        if any(key not in known for key in given):
            raise ConfigError(NO_DIFFUSION)
        return replace(self, **given)


@dataclass(frozen=True)
class TransformerConfig(NetworkConfig):
    """Settings of every transformer.

    Attributes:
        num_blocks: transformer blocks.
        num_heads: attention heads; must divide ``hidden_size``.
        embedding_dropout: dropout of the embedded history.
        dropout: dropout of attention weights, feed-forward and residual branches.
    """

    num_blocks: int = 2
    num_heads: int = 4
    embedding_dropout: float = 0.3
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_blocks", "num_heads"):
            require(getattr(self, name) >= 1, f"model.{name} must be at least 1; it is {getattr(self, name)}.")
        check_shares(self, "embedding_dropout", "dropout")
        require(
            self.hidden_size % self.num_heads == 0 and self.hidden_size % 2 == 0,
            f"model.hidden_size must be even and a multiple of model.num_heads; {self.hidden_size} and "
            f"{self.num_heads} are not.",
        )


@dataclass(frozen=True)
class PaddedConfig(TransformerConfig):
    """Settings of a transformer with the published code's padding.

    Attributes:
        attend_padding: tokens attend to the left padding, as in the published code. It is computed exactly as one
            sink token whose logit gets ``log p`` for p paddings.
        padding_class: the padding row is a class of the softmax, and can be ranked.
        repeat_bias: a learned number is added to the logits of the items of the history. It becomes negative if users
            do not return to an item, and positive if they do. Without it, the network spends capacity on separating
            recent items from similar ones.
        feed_forward_ratio: the width of a block's feed-forward, as a multiple of ``hidden_size``.
    """

    attend_padding: bool = True
    padding_class: bool = False
    repeat_bias: bool = False
    feed_forward_ratio: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.feed_forward_ratio >= 1,
            f"model.feed_forward_ratio must be at least 1; it is {self.feed_forward_ratio}.",
        )


def check_shares(config: NetworkConfig, *names: str) -> None:
    """Raise :class:`ConfigError` where one of the named fields is not in [0, 1)."""
    for name in names:
        require(0 <= getattr(config, name) < 1, f"model.{name} must be in [0, 1); it is {getattr(config, name)}.")


def check_steps(num_train_timesteps: int, num_inference_steps: int, part: str = "model") -> None:
    """Raise :class:`ConfigError` if there are no timesteps, or fewer timesteps than inference steps."""
    require(num_train_timesteps >= 1, f"{part}.num_train_timesteps must be at least 1; it is {num_train_timesteps}.")
    require(
        1 <= num_inference_steps <= num_train_timesteps,
        f"{part}.num_inference_steps must lie between 1 and num_train_timesteps = {num_train_timesteps}; "
        f"it is {num_inference_steps}.",
    )


@dataclass(frozen=True)
class StageConfig(ConfigGroup):
    """One stage of training.

    Attributes:
        epochs: the largest number of epochs of the stage.
        optimizer: ``adam`` or ``adamw``. The weight decay of Adam is an L2 term added to the gradient.
        learning_rate: the learning rate at the start of the schedule.
        weight_decay: the optimizer's weight decay.
        beta2: Adam's decay of its mean of squared gradients.
        warmup_epochs: epochs over which the learning rate rises from 0, step by step.
        schedule: the learning-rate schedule: ``cosine``, stepped once an epoch, or ``constant``.
        schedule_epochs: the length of the cosine schedule.
        averaging: the decay of the weights' moving average (EMA), per step; 0 keeps the weights themselves. The average
            is validated and kept. Early decay is lower: the newest weights have a share of 9 / (10 + steps).
        first_evaluation: epochs before the first validation.
        evaluate_every: epochs between validations.
        patience: validations without improvement after which the stage stops; 0 never stops early.
        select_by: validation metrics. Weights are kept when any of them improves.
        seen: whether validation ranks the items of the history: ``keep``, ``leave-out``, or as the ``data`` say. What
            the data say, ``recommend`` does too.
        initial_embedding: initial item embedding: ``random`` values or ``cooccurrence`` of the items. The latter saves
            the first epochs: :mod:`adrec.train.cooccurrence`.
    """

    epochs: int = 500
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    beta2: float = 0.999
    warmup_epochs: int = 0
    schedule: Literal["cosine", "constant"] = "cosine"
    schedule_epochs: int = 500
    averaging: float = 0.0
    first_evaluation: int = 6
    evaluate_every: int = 5
    patience: int = 4
    select_by: tuple[str, ...] = ("ndcg@20",)
    seen: SeenOrData = "data"
    initial_embedding: Literal["random", "cooccurrence"] = "random"

    def __post_init__(self) -> None:
        for name in ("averaging", "beta2"):
            require(0 <= getattr(self, name) < 1, f"{name} of a stage must be in [0, 1); it is {getattr(self, name)}.")
        for name in ("patience", "weight_decay", "warmup_epochs"):
            require(
                getattr(self, name) >= 0,
                f"{name} of a stage must not be negative; it is {getattr(self, name)}.",
            )
        for name in ("epochs", "schedule_epochs", "first_evaluation", "evaluate_every"):
            least = self.fewest_epochs if name == "epochs" else 1
            require(
                getattr(self, name) >= least,
                f"{name} of a stage must be at least {least}; it is {getattr(self, name)}.",
            )
        require(self.learning_rate > 0, f"learning_rate must be above 0; it is {self.learning_rate}.")
        for metric in self.select_by:
            kind, _, cutoff = metric.partition("@")
            require(
                kind in ("hr", "ndcg", "mrr") and cutoff.isdecimal() and int(cutoff) >= 1,
                f"select_by names metrics such as 'ndcg@20'; it has {metric!r}.",
            )
        require(len(self.select_by) > 0, "select_by must name at least one metric.")

    def idle(self) -> Mapping[str, str]:
        """Return the keys without effect."""
        found = {}
        if self.schedule == "constant":
            found["schedule_epochs"] = "the learning rate is constant"
        if self.start != "scratch":
            found["initial_embedding"] = "the item embedding is that of the stage before"
        return found

    # Some models' stages make the following properties settings; these are the values for all others.

    @property
    def network(self) -> str:
        """The kind of network that the stage trains."""
        return "network"

    @property
    def start(self) -> Literal["scratch", "embedding", "continue"]:
        """The initial weights: new weights, the item embedding of the previous stage, or its full state."""
        return "scratch"

    @property
    def embedding(self) -> Literal["train", "frozen", "decaying"]:
        """How the item embedding is trained."""
        return "train"

    @property
    def fewest_epochs(self) -> int:
        """The smallest valid value of ``epochs``."""
        return 1

    @property
    def purpose(self) -> str:
        """What the stage does, in a few words for the log of several stages; empty if it is the model's only one."""
        return ""

    @property
    def validates(self) -> bool:
        """Whether the stage is validated, if a validation part exists; otherwise its last weights are kept."""
        return True

    @property
    def consistency(self) -> float:
        """The weight of the divergence between two passes with different dropout; 0 is one pass."""
        return 0.0

    @property
    def negatives(self) -> int:
        """The number of items sampled for a batch's softmax besides its own; 0 is the whole catalogue."""
        return 0

    @property
    def drawn(self) -> int | None:
        """The number of items that a step draws beside those of its batch; None if it draws none."""
        if self.rows is not None:
            return 0 if self.rows.draw == "batch" else self.rows.drawn
        return self.negatives or None

    @property
    def rows(self) -> RowsConfig | None:
        """How only the rows of the item embedding that a step needs are trained; None trains all of them."""
        return None

    @property
    def buckets(self) -> BucketsConfig | None:
        """How items near to a token are found, if its softmax is over these alone; None if it is not."""
        return None

    @property
    def future_items(self) -> int:
        """The number of next items that are targets of a token."""
        return 1

    @property
    def future_decay(self) -> float:
        """The weight of each of these items, relative to the one before."""
        return 1.0

    @property
    def pcgrad(self) -> bool:
        """Whether conflicting gradients of two losses are projected."""
        return False

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The training losses and their weights; empty if the network has a single loss."""
        return {}
