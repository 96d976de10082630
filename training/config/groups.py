"""The settings of a run in groups, each with its type, its range, its default and its description.

A function takes the group that it needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.store.manifest import MODEL_NAME_PATTERN
from app.store.places import default_store

Augmentation = Literal["none", "light", "affine", "randaugment", "autoaugment", "trivialaugment"]
Initialisation = Literal["default", "kaiming", "xavier"]
Optimiser = Literal["sgd", "adam", "adamw", "rmsprop"]
Precision = Literal["float32", "bf16", "fp16"]
Schedule = Literal["constant", "step", "multi-step", "exponential", "cosine", "one-cycle", "reduce-on-plateau"]
IMAGENET_SIZE = 224
# Below this side, photographs have lost what an ImageNet backbone looks for, and a crop costs too much of them.
_SMALL_IMAGE_SIZE = 96


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSettings(_Group):
    """The images: where they come from, and how they become batches."""

    data: str = Field(
        default="",
        description="A folder that holds a folder for each class, or one of digits, FashionMNIST, MNIST, CIFAR10",
    )
    data_name: str | None = Field(
        default=None, description="The name of the data in the manifest; by default the folder's"
    )
    data_licence: str | None = Field(default=None, description="The licence of the data, for the manifest of the model")
    download_folder: Path = Field(default=Path("data"), description="The folder into which data sets are downloaded")
    val_fraction: float = Field(
        default=0.15, gt=0, lt=1, description="The part of the images that is set aside to choose the best epoch"
    )
    test_fraction: float = Field(
        default=0.15, gt=0, lt=1, description="The part of the images that is set aside for the test at the end"
    )
    channels: int = Field(default=3, ge=1, le=3, description="Channels of the images: 1 trains on grey, 3 on RGB")
    image_size: int = Field(
        default=IMAGENET_SIZE, ge=4, le=2048, description="The side of the square that the network sees, in pixels"
    )
    resize_size: int | None = Field(
        default=None,
        ge=4,
        le=4096,
        description="The shorter side of an image before the crop, in pixels; by default 8/7 of image_size, or "
        f"image_size where that is below {_SMALL_IMAGE_SIZE}",
    )
    statistics: Literal["auto", "training", "pretrained", "given"] = Field(
        default="auto",
        description="Where mean and std come from: the training split, the pretrained weights, or the settings mean "
        "and std (given); auto takes those of the pretrained weights if there are any, else of the training split",
    )
    mean: tuple[float, ...] | None = Field(
        default=None, description="With statistics given: the mean of each channel, of values in [0, 1]"
    )
    std: tuple[float, ...] | None = Field(
        default=None, description="With statistics given: the standard deviation of each channel, of values in [0, 1]"
    )
    cache: Literal["auto", "memory", "none"] = Field(
        default="auto", description="When resized images are kept in memory: if they fit (auto), always or never"
    )
    cache_limit_mb: int = Field(
        default=4096, ge=0, description="With cache auto: the most memory that images may take, in megabytes"
    )
    workers: int = Field(default=2, ge=0, description="How many processes decode the images that are not in memory")
    batch_size: int = Field(default=32, ge=1, description="How many images a step takes, over all processes")

    @property
    def shorter_side(self) -> int:
        """The shorter side of a resized image before the crop, in pixels."""
        if self.resize_size is not None:
            return self.resize_size
        return self.image_size if self.image_size < _SMALL_IMAGE_SIZE else round(self.image_size * 8 / 7)


class AugmentSettings(_Group):
    """How training images are varied. Images of validation and test never are."""

    augmentation: Augmentation = Field(
        default="light", description="How training images are varied: one of the presets"
    )
    horizontal_flip: bool = Field(
        default=True, description="Mirror half of the images; turn it off for digits and text"
    )
    crop_padding: int | None = Field(
        default=None,
        ge=0,
        description="How far random crops reach over the border, which is reflected, in pixels; by default 1/8 of "
        "image_size, or 0 if resize_size leaves a margin",
    )
    rotation_degrees: float = Field(
        default=10.0, ge=0, le=180, description="With affine: turn by up to so many degrees"
    )
    translation: float = Field(default=0.1, ge=0, lt=1, description="With affine: shift by up to this part of the side")
    scaling: float = Field(default=0.1, ge=0, lt=1, description="With affine: enlarge or shrink by up to this part")
    colour_jitter: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="With affine: change brightness, contrast and saturation by up to this part",
    )
    randaugment_num_ops: int = Field(
        default=2, ge=1, le=14, description="With randaugment: how many operations an image gets"
    )
    randaugment_magnitude: int = Field(
        default=9, ge=0, le=30, description="With randaugment: how strong the operations are, up to 30"
    )
    random_erasing: float = Field(
        default=0.0, ge=0, le=1, description="The probability that a rectangle of an image is erased"
    )
    mixup: float = Field(default=0.0, ge=0, description="The alpha of mixup; 0 turns it off")
    cutmix: float = Field(default=0.0, ge=0, description="The alpha of cutmix; 0 turns it off")


class ModelSettings(_Group):
    """The network."""

    architecture: str = Field(
        default="efficientnet-lite0",
        description="simple-cnn, tiny-net, gap-cnn, vgg16, vgg16-bn, efficientnet-lite0, torchvision/NAME or timm/NAME",
    )
    pretrained: bool = Field(
        default=False,
        description="Start from pretrained weights and a new head; by default true for efficientnet-lite0",
    )
    initialisation: Initialisation = Field(
        default="default", description="How weights that are not pretrained are initialised"
    )
    widths: tuple[int, ...] = Field(
        default=(16, 32, 64), description="With simple-cnn, gap-cnn: the channels of each block"
    )
    convolutions_per_block: int = Field(
        default=1, ge=1, le=8, description="With simple-cnn, gap-cnn: how many convolutions a block has"
    )
    hidden_width: int = Field(
        default=128, ge=1, description="With simple-cnn: how many units the head's hidden layer has"
    )
    batchnorm: bool = Field(
        default=True, description="With simple-cnn, gap-cnn: batch normalisation after each convolution"
    )
    dropout: float = Field(
        default=0.2, ge=0, lt=1, description="The probability of dropout before the last layer; blocks have half of it"
    )


class TransferSettings(_Group):
    """How a pretrained network is adapted."""

    frozen_epochs: int = Field(
        default=0,
        ge=0,
        description="The number of epochs, at the start, in which only the new head learns; by default all for "
        "efficientnet-lite0",
    )
    unfreezing: Literal["all", "staged"] = Field(
        default="all",
        description="What learns after frozen_epochs: the whole backbone at once (all), or one stage more in each "
        "epoch, the last stage first (staged)",
    )
    backbone_learning_rate_scale: float = Field(
        default=0.1, gt=0, le=1, description="The learning rate of the backbone, as a part of the head's"
    )
    feature_views: int = Field(
        default=0,
        ge=0,
        le=64,
        description="While the backbone is frozen: compute the features of so many augmented views of each image once, "
        "and learn from them; 0 turns it off; by default 4 for efficientnet-lite0",
    )


class OptimSettings(_Group):
    """How weights are changed."""

    epochs: int = Field(default=40, ge=1, description="How many times training goes through the training split")
    optimiser: Optimiser = Field(default="adamw", description="The rule by which the weights change")
    learning_rate: float = Field(default=1e-3, gt=0, description="The learning rate of the head at its highest")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="With sgd, rmsprop: the momentum")
    nesterov: bool = Field(default=True, description="With sgd: Nesterov momentum")
    weight_decay: float = Field(default=1e-2, ge=0, description="The decay of weights; norms and biases do not decay")
    gradient_clip: float = Field(
        default=0.0, ge=0, description="The largest norm that the gradient may have; 0 turns it off"
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="The part of the target that is spread over all classes"
    )
    class_weights: Literal["none", "balanced"] = Field(
        default="none", description="Whether rare classes weigh more (balanced)"
    )
    schedule: Schedule = Field(default="cosine", description="How the learning rate changes over the run")
    warmup_epochs: float = Field(
        default=0.0, ge=0, description="The number of epochs until the full learning rate is reached"
    )
    step_epochs: int = Field(default=10, ge=1, description="With step: the number of epochs between drops")
    milestones: tuple[int, ...] = Field(default=(), description="With multi-step: the epochs of the drops")
    gamma: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="With step, multi-step, exponential, reduce-on-plateau: the factor of a drop",
    )
    plateau_patience: int = Field(
        default=3, ge=0, description="With reduce-on-plateau: the number of epochs without gain before a drop"
    )


class RunSettings(_Group):
    """The run itself: names, folders, the device, when it ends."""

    name: str = Field(default="model", pattern=MODEL_NAME_PATTERN, description="The name of the model in the store")
    runs: Path = Field(default=Path("runs"), description="The folder in which the run's folder is made")
    store: Path = Field(
        default_factory=default_store,
        description="The model store, in which the model is published; by default ./model_store if there is one, else "
        "a folder of the user",
    )
    publish: bool = Field(default=True, description="Publish the model at the end")
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="The seed of the split, the weights, the order and the augmentation"
    )
    deterministic: bool = Field(
        default=False, description="Refuse operations whose result varies between runs on a GPU"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="The device that computes; auto takes a GPU if there is one"
    )
    threads: int | None = Field(
        default=None, ge=1, description="How many CPU threads compute; by default as many as there are cores"
    )
    precision: Precision = Field(default="float32", description="The precision of the forward pass")
    channels_last: bool = Field(
        default=True, description="Keep images in memory with the channels last, which makes convolutions faster"
    )
    compile: bool = Field(default=False, description="Compile the network with torch.compile")
    ema_decay: float = Field(
        default=0.0, ge=0, lt=1, description="The decay of an exponential moving average of the weights; 0 turns it off"
    )
    monitor: Literal["val_accuracy", "val_loss"] = Field(
        default="val_accuracy", description="The metric that makes an epoch the best"
    )
    early_stopping_patience: int = Field(
        default=0, ge=0, description="The number of epochs without gain after which the run stops; 0 turns it off"
    )
    checkpoint_every_steps: int = Field(
        default=0,
        ge=0,
        description="The number of steps between checkpoints; 0 writes one at the end of each epoch only",
    )
    tracking: Literal["mlflow", "none"] = Field(
        default="mlflow", description="Where parameters and metrics are recorded"
    )
