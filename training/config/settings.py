"""What a run is told: one frozen, flat configuration, from a YAML file and flags of the same names, saved with the run.

config.yaml + flags -> config_file.load_config -> TrainConfig (checked) -> every step of the run -> <run>/config.yaml

The names are flat, so that a flag, a line of the file and a dimension of a search are written the same; the classes
group them, and a function asks for the group that it needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.store.manifest import MODEL_NAME_PATTERN

Augmentation = Literal["none", "light", "affine", "randaugment", "autoaugment", "trivialaugment"]
Initialisation = Literal["default", "kaiming", "xavier"]
Optimiser = Literal["sgd", "adam", "adamw", "rmsprop"]
Precision = Literal["float32", "bf16", "fp16"]
Schedule = Literal["constant", "step", "multi-step", "exponential", "cosine", "one-cycle", "reduce-on-plateau"]

IMAGENET_SIZE = 224
# Below this, photographs have lost what an ImageNet backbone looks for, and crops cost too much of them.
_SMALL_IMAGE_SIZE = 96


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSettings(_Group):
    """Where images come from and how they become batches."""

    data: str = Field(
        default="", description="A folder with a folder per class, or: digits, FashionMNIST, MNIST, CIFAR10"
    )
    data_name: str | None = Field(
        default=None, description="What the manifest calls the data; the folder's name by default"
    )
    data_licence: str | None = Field(default=None, description="The licence of the data, for the manifest")
    download_folder: Path = Field(default=Path("data"), description="Where data sets are downloaded to")
    val_fraction: float = Field(default=0.15, gt=0, lt=1, description="Set aside to choose the best epoch")
    test_fraction: float = Field(default=0.15, gt=0, lt=1, description="Set aside for the one test at the end")
    channels: int = Field(default=3, ge=1, le=3, description="1 trains on grey, 3 on RGB")
    image_size: int = Field(default=IMAGENET_SIZE, ge=4, le=2048, description="Side of what the network sees, pixels")
    resize_size: int | None = Field(
        default=None,
        ge=4,
        le=4096,
        description="Shorter side before the crop, pixels; by default 8/7 of image_size for photos",
    )
    statistics: Literal["auto", "training", "pretrained", "given"] = Field(
        default="auto",
        description="Mean and std: of the training split, of the pretrained weights, or given; auto: by pretrained",
    )
    mean: tuple[float, ...] | None = Field(
        default=None, description="With statistics given: of each channel, in [0, 1]"
    )
    std: tuple[float, ...] | None = Field(default=None, description="With statistics given: of each channel, in [0, 1]")
    cache: Literal["auto", "memory", "none"] = Field(
        default="auto", description="Keep resized images in memory: where they fit, always, or never"
    )
    cache_limit_mb: int = Field(default=4096, ge=0, description="With cache auto: the most memory to use")
    workers: int = Field(default=2, ge=0, description="Processes that decode images that are not in memory")
    batch_size: int = Field(default=32, ge=1, description="Images a step, over all processes")

    @property
    def shorter_side(self) -> int:
        """The shorter side in pixels that images are resized to before the crop."""
        if self.resize_size is not None:
            return self.resize_size
        return self.image_size if self.image_size < _SMALL_IMAGE_SIZE else round(self.image_size * 8 / 7)


class AugmentSettings(_Group):
    """How training images are varied; never those of validation and test."""

    augmentation: Augmentation = Field(default="light", description="The preset")
    horizontal_flip: bool = Field(default=True, description="Mirror half of the images; off for digits and text")
    crop_padding: int | None = Field(
        default=None,
        ge=0,
        description="Reflected border for random crops, pixels; by default 1/8 of image_size without a resize margin",
    )
    rotation_degrees: float = Field(default=10.0, ge=0, le=180, description="affine: turn by up to this")
    translation: float = Field(default=0.1, ge=0, lt=1, description="affine: shift by up to this part of the side")
    scaling: float = Field(default=0.1, ge=0, lt=1, description="affine: enlarge or shrink by up to this part")
    colour_jitter: float = Field(
        default=0.2, ge=0, le=1, description="affine: brightness, contrast and saturation by up to this part"
    )
    randaugment_num_ops: int = Field(default=2, ge=1, le=14, description="randaugment: operations per image")
    randaugment_magnitude: int = Field(default=9, ge=0, le=30, description="randaugment: how strong, of 30")
    random_erasing: float = Field(
        default=0.0, ge=0, le=1, description="Probability that a rectangle of an image is erased"
    )
    mixup: float = Field(default=0.0, ge=0, description="Alpha of mixup; 0 is off")
    cutmix: float = Field(default=0.0, ge=0, description="Alpha of cutmix; 0 is off")


class ModelSettings(_Group):
    """The network."""

    architecture: str = Field(
        default="efficientnet-lite0",
        description="simple-cnn, tiny-net, gap-cnn, vgg16, vgg16-bn, efficientnet-lite0, torchvision/NAME or timm/NAME",
    )
    pretrained: bool = Field(
        default=False,
        description="Start from pretrained weights, with a new head; by default true for efficientnet-lite0",
    )
    initialisation: Initialisation = Field(default="default", description="Of the weights that are not pretrained")
    widths: tuple[int, ...] = Field(default=(16, 32, 64), description="simple-cnn, gap-cnn: channels of each block")
    convolutions_per_block: int = Field(default=1, ge=1, le=8, description="simple-cnn, gap-cnn: depth of each block")
    hidden_width: int = Field(default=128, ge=1, description="simple-cnn: units of the head's hidden layer")
    batchnorm: bool = Field(default=True, description="simple-cnn, gap-cnn: normalise after each convolution")
    dropout: float = Field(default=0.2, ge=0, lt=1, description="Before the last layer; in blocks, half as much")


class TransferSettings(_Group):
    """How a pretrained network is adapted."""

    frozen_epochs: int = Field(
        default=0,
        ge=0,
        description="First epochs in which only the new head learns; by default all for efficientnet-lite0",
    )
    unfreezing: Literal["all", "staged"] = Field(
        default="all", description="After those: the whole backbone at once, or one stage more each epoch, last first"
    )
    backbone_learning_rate_scale: float = Field(default=0.1, gt=0, le=1, description="Of the backbone, once it learns")
    feature_views: int = Field(
        default=0,
        ge=0,
        le=64,
        description="While frozen: learn from features of so many augmented views, computed once; 0 is off; "
        "by default 4 for efficientnet-lite0",
    )


class OptimSettings(_Group):
    """How weights are changed."""

    epochs: int = Field(default=40, ge=1, description="How often the training split is gone through")
    optimiser: Optimiser = Field(default="adamw", description="The rule")
    learning_rate: float = Field(default=1e-3, gt=0, description="Of the head, at its highest")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="sgd, rmsprop")
    nesterov: bool = Field(default=True, description="sgd: look ahead")
    weight_decay: float = Field(default=1e-2, ge=0, description="Of weights, not of norms and biases")
    gradient_clip: float = Field(default=0.0, ge=0, description="Largest norm of the gradient; 0 is off")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="Part of the target spread over all classes")
    class_weights: Literal["none", "balanced"] = Field(default="none", description="balanced: rare classes weigh more")
    schedule: Schedule = Field(default="cosine", description="How the learning rate changes")
    warmup_epochs: float = Field(default=0.0, ge=0, description="Epochs until the full learning rate is reached")
    step_epochs: int = Field(default=10, ge=1, description="step: epochs between drops")
    milestones: tuple[int, ...] = Field(default=(), description="multi-step: epochs of the drops")
    gamma: float = Field(
        default=0.1, gt=0, lt=1, description="step, multi-step, exponential, reduce-on-plateau: the factor"
    )
    plateau_patience: int = Field(default=3, ge=0, description="reduce-on-plateau: epochs without gain before a drop")


class RunSettings(_Group):
    """The run itself."""

    name: str = Field(default="model", pattern=MODEL_NAME_PATTERN, description="The model's name in the store")
    runs: Path = Field(default=Path("runs"), description="Where the run's folder is made")
    store: Path = Field(default=Path("model_store"), description="Where the model is published")
    publish: bool = Field(default=True, description="Publish the model at the end")
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="Of the split, the weights, the order and the augmentation"
    )
    deterministic: bool = Field(default=False, description="Refuse operations whose result varies between runs (GPU)")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(default="auto", description="Where to compute")
    threads: int | None = Field(default=None, ge=1, description="CPU threads; by default as many as there are cores")
    precision: Precision = Field(default="float32", description="Of the forward pass")
    channels_last: bool = Field(default=True, description="Memory layout N, H, W, C: faster convolutions")
    compile: bool = Field(default=False, description="torch.compile the network")
    ema_decay: float = Field(default=0.0, ge=0, lt=1, description="Exponential moving average of the weights; 0 is off")
    monitor: Literal["val_accuracy", "val_loss"] = Field(
        default="val_accuracy", description="What makes an epoch the best"
    )
    early_stopping_patience: int = Field(default=0, ge=0, description="Epochs without gain before stopping; 0 is off")
    checkpoint_every_steps: int = Field(default=0, ge=0, description="Checkpoints within an epoch; 0: at its end only")
    tracking: Literal["mlflow", "none"] = Field(default="mlflow", description="Where parameters and metrics are logged")


class Settings(DataSettings, AugmentSettings, ModelSettings, TransferSettings, OptimSettings, RunSettings):
    """All of them, each valid on its own; what flags are parsed into."""


class TrainConfig(Settings):
    """All of them, possible together.

    The recipe for a small set of photos on a CPU stands in for what is not given: EfficientNet-Lite0 stays frozen, so
    that each photo passes through it a few times in all, and only a new head learns, in seconds.
    """

    @model_validator(mode="before")
    @classmethod
    def _fill_in_recipe(cls, settings: Any) -> Any:
        architecture = cls.model_fields["architecture"].default
        if not isinstance(settings, dict) or settings.get("architecture", architecture) != architecture:
            return settings
        settings = {"pretrained": True, **settings}
        if settings["pretrained"] is True:
            settings.setdefault("frozen_epochs", settings.get("epochs", cls.model_fields["epochs"].default))
            mixes = settings.get("mixup", 0) or settings.get("cutmix", 0)
            settings.setdefault("feature_views", 4 if settings["frozen_epochs"] and not mixes else 0)
        return settings

    @model_validator(mode="after")
    def _possible_together(self) -> Self:
        for problem in _contradictions(self):
            raise ValueError(problem)
        return self


def _contradictions(config: Settings) -> list[str]:
    """Returns a sentence for each pair of settings that cannot both hold, with the way out."""
    problems = []
    if not config.data:
        problems.append(
            "data is missing: give a folder with a folder per class, or one of digits, FashionMNIST, MNIST, CIFAR10."
        )
    if config.channels == 2:
        problems.append("channels must be 1 (grey) or 3 (RGB).")
    if config.val_fraction + config.test_fraction >= 1:
        problems.append("val_fraction and test_fraction leave nothing to train on: their sum must be below 1.")
    if config.resize_size is not None and config.resize_size < config.image_size:
        problems.append(f"resize_size ({config.resize_size}) must be at least image_size ({config.image_size}).")
    if len({config.statistics == "given", config.mean is not None, config.std is not None}) > 1:
        problems.append("statistics: given goes with mean and std, all three or none.")
    for values in (config.mean, config.std):
        if values is not None and len(values) != config.channels:
            problems.append(f"mean and std need {config.channels} values each, one for each channel.")
    if config.std is not None and min(config.std) <= 0:
        problems.append("std must be positive.")
    if config.statistics == "pretrained" and not config.pretrained:
        problems.append("statistics: pretrained needs pretrained: true.")
    if config.frozen_epochs and not config.pretrained:
        problems.append("frozen_epochs needs pretrained: true; a random backbone must learn.")
    if config.feature_views and not config.frozen_epochs:
        problems.append("feature_views needs frozen_epochs: features can only be kept while the backbone is frozen.")
    if config.feature_views and (config.mixup or config.cutmix):
        problems.append("mixup and cutmix mix pixels, feature_views keeps none: turn one of them off.")
    if not config.widths or min(config.widths) < 1:
        problems.append("widths needs at least one positive number.")
    if config.schedule == "multi-step" and not config.milestones:
        problems.append("schedule: multi-step needs milestones, such as [10, 20].")
    if list(config.milestones) != sorted(set(config.milestones)):
        problems.append("milestones must rise.")
    if config.warmup_epochs >= config.epochs:
        problems.append(f"warmup_epochs ({config.warmup_epochs}) must be below epochs ({config.epochs}).")
    if config.optimiser == "sgd" and config.nesterov and config.momentum == 0:
        problems.append("nesterov needs momentum: set nesterov: false, or a momentum above 0.")
    if config.crop_padding is not None and config.crop_padding >= config.image_size:
        problems.append("crop_padding must be below image_size: a border is reflected once.")
    return problems
