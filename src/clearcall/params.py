"""The parameters of params.yaml as frozen pydantic models."""

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from clearcall.core.errors import UserError
from clearcall.imaging.sizes import Filter

Fraction = Annotated[float, Field(ge=0, lt=1)]
SSIM_WINDOW = 11  # pixels
# Values of params.yaml by dotted name: what a recipe or a point of a study changes.
Overrides = dict[str, Any]
_LowHigh = TypeVar("_LowHigh", bound=tuple[float, float])


class _Params(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _ascending(low_high: _LowHigh) -> _LowHigh:
    if low_high[0] > low_high[1]:
        raise ValueError(f"must be [low, high], not {list(low_high)}")
    return low_high


def _odd(length: int) -> int:
    if length % 2 == 0:
        raise ValueError("must be an odd number of pixels")
    return length


_Ascending = AfterValidator(_ascending)
BlurSigma = Annotated[float, Field(gt=0, le=20)]  # pixels
BlurLength = Annotated[int, Field(ge=3, le=99), AfterValidator(_odd)]  # pixels
NoiseSigma = Annotated[float, Field(ge=0, le=128)]  # 8-bit levels
JpegQuality = Annotated[int, Field(ge=1, le=100)]
Qp = Annotated[int, Field(ge=1, le=51)]
Amount = Annotated[float, Field(ge=0, le=20)]


class Paths(_Params):
    """Folders, relative to the project's top."""

    raw: Path
    pairs: Path
    weights: Path
    models: Path
    runs: Path
    data_docs: Path
    checkpoints: Path
    reports: Path


STORAGES = ("s3", "gs")  # schemes of URLs: S3 and Google Cloud Storage


def _known_storage(folder: object) -> object:
    scheme, separator, path = folder.partition("://") if isinstance(folder, str) else ("", "", "")
    if separator and (scheme not in STORAGES or path[:1] in {"", "/"}):
        known = " or ".join(f"{known}://bucket/folder" for known in STORAGES)
        raise ValueError(f"must be a folder on this machine, or {known}, not {folder}")
    return folder


class PublishedArchive(_Params):
    """A zip file on the network, its SHA-256, and its size in bytes."""

    url: str = Field(pattern=r"^https?://.*[^/]$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(gt=0)


PAIRED = {"paired_folder", "gopro"}  # sources whose photographs come with blurred partners


class DownloadData(_Params):
    """The source of the photographs and their splits; `archive` is of the source `gopro`.

    `folder` is on this machine or a URL, s3://bucket/folder or gs://bucket/folder.
    """

    source: Literal["bundled", "folder", "div2k", "unsplash_sr", "paired_folder", "gopro"]
    folder: Annotated[Annotated[str, Field(pattern="://")] | Path, BeforeValidator(_known_storage)]
    archive: PublishedArchive | None = None
    group_by: Literal["file", "folder"]
    licence: str
    validation_fraction: Fraction
    test_fraction: Fraction
    video_frames: int = Field(ge=1, le=10_000)
    video_scale: float = Field(gt=0, le=1)
    min_side: int = Field(ge=8)
    max_pixels: int = Field(gt=0, le=200_000_000)  # as `MAX_PIXELS` of imaging/decode.py
    seed: int = Field(ge=0)

    def anchored_folder(self) -> str:
        """Return the folder as an absolute path, or its URL."""
        return self.folder if isinstance(self.folder, str) else str(self.folder.resolve())


class CountPerSplit(_Params):
    """A least count for each split."""

    train: int = Field(ge=1)
    validation: int = Field(ge=1)
    test: int = Field(ge=1)


class CheckData(_Params):
    """Limits that the manifest must keep."""

    min_images: CountPerSplit
    side_range: Annotated[tuple[int, int], _Ascending]


class AsGiven(_Params):
    """Take the source's blurred partner in place of the photograph; first step only."""

    op: Literal["as_given"]


class Downscale(_Params):
    """Resize by 1/factor with Pillow's antialiased filter."""

    op: Literal["downscale"]
    factor: float = Field(ge=1, le=16)
    filter: Filter


class Upscale(_Params):
    """Resize back to the photograph's own size."""

    op: Literal["upscale"]
    filter: Filter


class GaussianBlur(_Params):
    """Gaussian blur; sigma in pixels, drawn uniformly."""

    op: Literal["gaussian_blur"]
    sigma_range: Annotated[tuple[BlurSigma, BlurSigma], _Ascending]


class MotionBlur(_Params):
    """Blur along a straight line of any direction; length in pixels, an odd number drawn uniformly."""

    op: Literal["motion_blur"]
    length_range: Annotated[tuple[BlurLength, BlurLength], _Ascending]


class Noise(_Params):
    """Gaussian noise, independent in each channel; sigma in 8-bit levels (0 to 255), drawn uniformly."""

    op: Literal["noise"]
    sigma_range: Annotated[tuple[NoiseSigma, NoiseSigma], _Ascending]


class Jpeg(_Params):
    """JPEG compression; quality drawn uniformly."""

    op: Literal["jpeg"]
    quality_range: Annotated[tuple[JpegQuality, JpegQuality], _Ascending]


CallCodec = Literal["h264", "vp8", "vp9", "av1"]
PhotoMotion = Literal["pan", "bend"]  # of photographs that become clips


class Codec(_Params):
    """Send through a video call: downscale, encode, lose packets, decode, upscale.

    One of `codecs`, of `factors` and of `loss_rates` (of packets) is drawn for each image, and a quantizer from
    `qp_range`, which is H.264's scale (1 to 51) for every codec, and one of `upscale_filters`, by which the other side
    upscales what arrives. `temporal_filter` is the share of images that arrive with what the frames before them show,
    as `clearcall sharpen` sees them.
    """

    op: Literal["codec"]
    codecs: tuple[CallCodec, ...] = Field(min_length=1)
    factors: tuple[Annotated[float, Field(ge=1, le=16)], ...] = Field(min_length=1)
    qp_range: Annotated[tuple[Qp, Qp], _Ascending]
    loss_rates: tuple[Fraction, ...] = Field(min_length=1)
    temporal_filter: Annotated[float, Field(ge=0, le=1)] = 0.0
    upscale_filters: tuple[Filter, ...] = Field(default=("bicubic",), min_length=1)


DegradationStep = Annotated[
    AsGiven | Downscale | Upscale | GaussianBlur | MotionBlur | Noise | Jpeg | Codec,
    Field(discriminator="op"),
]


class DegradePairs(_Params):
    """Which degradations each photograph gets.

    `page_fraction` of those to learn from, at each scale, make way for a made-up page of text. `soft_fraction` are
    moved by parts of a pixel first, some of these are bent, and half are as soft as if they had been upscaled. Images
    of videos, of which a codec gets the frames before, stay as they are, and so do those with a blurred partner.
    """

    mix: tuple[str, ...] = Field(min_length=1)
    variants: int = Field(ge=1, le=100)
    scales: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(min_length=1)
    page_fraction: Fraction = 0
    soft_fraction: Fraction = 0
    workers: int | None = Field(ge=1)
    seed: int = Field(ge=0)
    degradations: dict[str, tuple[DegradationStep, ...]]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if unknown := sorted(set(self.mix) - set(self.degradations)):
            raise ValueError(f"the mix names unknown degradations {unknown}; known: {sorted(self.degradations)}")
        if len(set(self.mix)) != len(self.mix):
            raise ValueError("the mix names a degradation twice; use `variants` for more of each")
        for name, steps in self.degradations.items():
            if any(isinstance(step, AsGiven) for step in steps[1:]):
                raise ValueError(f"degradation {name} must begin with as_given, or what comes before would be lost")
            resized = False
            for step in steps:
                resized = True if isinstance(step, Downscale) else False if isinstance(step, Upscale) else resized
            if resized:
                raise ValueError(f"degradation {name} must end with an upscale, or its pair would differ in size")
        return self

    def takes_given(self, name: str) -> bool:
        """Return whether a degradation starts from the blurred partner that the source brings."""
        return any(isinstance(step, AsGiven) for step in self.degradations[name])

    def has_codec(self, names: Sequence[str] = ()) -> bool:
        """Return whether some degradation of `names`, or else of the mix, goes through an encoder."""
        return any(isinstance(step, Codec) for name in names or self.mix for step in self.degradations[name])


class CheckPairs(_Params):
    """Limits that every pair must keep."""

    psnr_db_range: Annotated[tuple[float, float], _Ascending]
    ssim_range: Annotated[tuple[float, float], _Ascending]
    min_pairs: CountPerSplit


class Model(_Params):
    """An architecture by the name of its file, and the arguments of its `build`."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    arguments: dict[str, Any]


LossWeight = Annotated[float, Field(ge=0)]


class TeacherLosses(_Params):
    """Weight of each loss against the sharp image."""

    l1: LossWeight = 0
    perceptual: LossWeight = 0
    mse: LossWeight = 0
    charbonnier: LossWeight = 0
    ssim: LossWeight = 0
    relative_mse: LossWeight = 0
    luma_gain: LossWeight = 0
    chroma_gain: LossWeight = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.weights():
            raise ValueError(f"give at least one loss a weight above 0; known: {sorted(type(self).model_fields)}")
        return self

    def weights(self) -> dict[str, float]:
        """Return the losses in use, by name."""
        return {name: weight for name, weight in self if weight > 0}


class StudentLosses(TeacherLosses):
    """Weight of each loss against the sharp image and against the teacher."""

    teacher_l1: LossWeight = 0
    teacher_mse: LossWeight = 0
    feature_projection: LossWeight = 0


class Training(_Params):
    """What the training loop needs to know.

    `epochs`, where given, take the place of `steps` and `validate_every`: each has a patch of every training pair and a
    validation at its end. `validation_pairs` limits how many pairs that looks at. `untold_fraction` is the
    share of samples whose degradation a conditioned network is not told. `relative_floor` is what the losses
    relative_mse, luma_gain and chroma_gain add to an input's mean squared error, of images in [0, 1]: 0.002 is 27 dB.
    """

    steps: int = Field(ge=1)
    epochs: int | None = Field(default=None, ge=1)
    batch_size: int = Field(ge=1)
    patch_size: int = Field(ge=16, multiple_of=4)
    clean_fraction: Fraction
    recolour: bool
    untold_fraction: Fraction = 0.0
    optimizer: Literal["adamw", "adam"]
    learning_rate: float = Field(gt=0, le=1)
    weight_decay: float = Field(ge=0)
    warmup_steps: int = Field(ge=0)
    gradient_clip: float = Field(gt=0)
    relative_floor: float = Field(default=2e-3, gt=0)
    ema_decay: Fraction
    validate_every: int = Field(ge=1)
    validation_pairs: int | None = Field(default=None, ge=1)
    patience: int | None = Field(ge=1)
    precision: Literal["auto", "fp32", "bf16"]
    accelerator: str
    devices: int = Field(ge=1)
    nodes: int = Field(ge=1)
    seed: int = Field(ge=0)

    def as_one_process(self) -> Self:
        """Return the training of one process that has the same batches: `batch_size` is for each device."""
        batch_size = self.batch_size * self.devices * self.nodes
        return self.model_copy(update={"batch_size": batch_size, "devices": 1, "nodes": 1})


class Pretrained(_Params):
    """Weights to start from: a file's path or URL, and its SHA-256."""

    source: str = Field(min_length=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class TrainTeacher(_Params):
    """The teacher, trained from scratch or fine-tuned from `pretrained` weights: the shipped teacher's or others."""

    model: Model
    pretrained: Pretrained | Literal["shipped"] | None = None
    losses: TeacherLosses
    training: Training


class FeatureLayers(_Params):
    """A layer of the student and one of the teacher, for the loss feature_projection."""

    student: str
    teacher: str


class Expert(_Params):
    """One expert: the degradations, and maybe the images, that it learns from.

    `images` is a pattern of their names as a shell has it, such as `*head*`. `steps` and `recolour` go before those of
    the training, `arguments` before those of the model.
    """

    degradations: tuple[str, ...] = Field(min_length=1)
    images: str = "*"
    steps: Annotated[int, Field(ge=1)] | None = None
    recolour: bool | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)


class DistillStudent(_Params):
    """The student and its no-teacher baseline: one network, or experts and a router.

    `experts: each` makes one for each degradation of the mix. `neighbours` is the share of an expert's samples that are
    drawn from the pairs of all others, so that a frame which is routed to it by mistake loses little.
    """

    model: Model
    experts: dict[str, Expert] | Literal["each"] | None = None
    neighbours: Fraction = 0.0
    losses: StudentLosses
    feature_layers: tuple[FeatureLayers, ...] = ()
    baseline: bool
    training: Training

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.losses.feature_projection and not self.feature_layers:
            raise ValueError(
                "the loss feature_projection compares layers by name: add feature_layers, for example "
                "[{student: body.3, teacher: body.7}]"
            )
        if self.experts is None:
            return self
        if self.model.name != "luma_strided":
            raise ValueError(f"experts must be of luma_strided, not {self.model.name}: set experts: null")
        if not self.experts:
            raise ValueError("experts is empty: name some, or set it to each or null")
        if self.training.devices * self.training.nodes > 1:
            raise ValueError("experts are trained one a core: set training.devices and nodes to 1, or experts: null")
        return self

    def named_experts(self, mix: Sequence[str]) -> dict[str, Expert]:
        """Return the experts by name for the degradations of a mix; none for a single network."""
        if self.experts == "each":
            return {name: Expert(degradations=(name,)) for name in mix}
        return self.experts or {}


class Evaluate(_Params):
    """Grid of the unsharp mask: sigma in pixels, amount as a factor (1.0 is 100 %).

    `test_pairs` limits how many pairs are measured, as many of each degradation; null: all.
    """

    test_pairs: int | None = Field(default=None, ge=1)
    unsharp_radii: tuple[BlurSigma, ...] = Field(min_length=1)
    unsharp_amounts: tuple[Amount, ...] = Field(min_length=1)


class ExportOnnx(_Params):
    """The exported graph and how closely it must match torch; sizes are (height, width)."""

    opset: int = Field(ge=18, le=23)
    parity_sizes: tuple[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]], ...] = Field(min_length=1)
    max_difference: int = Field(ge=0, le=255)


class BenchmarkFps(_Params):
    """How speed is measured."""

    width: int = Field(ge=16)
    height: int = Field(ge=16)
    frames: int = Field(ge=1)
    blocks: int = Field(ge=1)
    warmup_frames: int = Field(ge=1)
    slow_ms: float = Field(gt=0)
    slow_frames: int = Field(ge=1)
    provider: Literal["auto", "onnxruntime", "openvino"]
    threads: int | None = Field(ge=1)
    frames_in_flight: int = Field(ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.frames < max(self.blocks, self.frames_in_flight):
            raise ValueError("frames must be at least as many as blocks and frames_in_flight")
        return self


class WriteReport(_Params):
    """What the report shows."""

    crop_side: int = Field(ge=16)
    examples: int = Field(ge=1)
    video_seconds: float = Field(ge=0.1, le=10)


class Publish(_Params):
    """Names in MLflow, and which runs set the alias `candidate`."""

    experiment: str = Field(min_length=1)
    model_name: str = Field(min_length=1)
    candidate: Literal["main", "always", "never"]


class ShippedGate(_Params):
    """What a network must reach to be taken into the package."""

    min_ssim_over_unsharp: float
    min_psnr_db_over_unsharp: float
    min_clean_psnr_db: float


class Gate(_Params):
    """What a model must reach to be shipped."""

    min_ssim: float = Field(ge=0, le=1)
    min_fps: float = Field(ge=0)
    min_ssim_over_unsharp: float
    min_psnr_db_over_unsharp: float
    shipped: dict[str, ShippedGate]  # by name of the network


class Params(_Params):
    """All of params.yaml."""

    paths: Paths
    download_data: DownloadData
    check_data: CheckData
    degrade_pairs: DegradePairs
    check_pairs: CheckPairs
    budget: float = Field(gt=0, le=1)
    train_teacher: TrainTeacher
    distill_student: DistillStudent
    evaluate: Evaluate
    export_onnx: ExportOnnx
    benchmark_fps: BenchmarkFps
    write_report: WriteReport
    publish: Publish
    gate: Gate

    @model_validator(mode="after")
    def _check(self) -> Self:
        smallest = self.download_data.min_side * self.download_data.video_scale * min(self.degrade_pairs.scales)
        if smallest < SSIM_WINDOW:
            raise ValueError(
                f"download_data.min_side times video_scale and the smallest of degrade_pairs.scales is {smallest:g} "
                f"pixels, and SSIM needs {SSIM_WINDOW}: raise min_side or leave out the smallest scale"
            )
        mix = self.degrade_pairs.mix
        wanted = {name for expert in self.distill_student.named_experts(mix).values() for name in expert.degradations}
        if missing := sorted(wanted - set(mix)):
            raise ValueError(f"distill_student.experts name {missing}, which degrade_pairs.mix lacks: {sorted(mix)}")
        source, given = self.download_data.source, [*filter(self.degrade_pairs.takes_given, self.degrade_pairs.mix)]
        if source in PAIRED and not given:
            raise ValueError(
                f"download_data.source {source} brings blurred images, but degrade_pairs.mix uses none of them: name "
                "as_given there, alone or beside others"
            )
        if given and source not in PAIRED:
            raise ValueError(
                f"degrade_pairs.mix names {', '.join(given)}, but download_data.source {source} brings no blurred "
                f"images: choose {' or '.join(sorted(PAIRED))}, or another mix"
            )
        return self


def call_codecs(names: Collection[str]) -> list[CallCodec]:
    """Return codecs by name, all of them for none; raise UserError if one is not known."""
    known = get_args(CallCodec)
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"unknown codec {', '.join(unknown)}: choose from {', '.join(known)}")
    return [codec for codec in known if not names or codec in names]


def parse_params(document: object) -> Params:
    """Check a parsed params.yaml; raise UserError naming each wrong key, its value and what is allowed."""
    try:
        return Params.model_validate(document)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            where = ".".join(str(part) for part in problem["loc"])
            match problem["type"]:
                case "extra_forbidden":
                    lines.append(f"{where}: unknown key; remove it or correct its name")
                case "missing":
                    lines.append(f"{where}: missing; add it")
                case _:
                    given = "" if isinstance(problem["input"], dict) else f" (given: {problem['input']!r})"
                    lines.append(f"{where}: {problem['msg'].removeprefix('Value error, ')}{given}")
        raise UserError("params.yaml is not right:\n  " + "\n  ".join(lines)) from None


def with_overrides(document: Mapping[str, Any], overrides: Overrides) -> Params:
    """Return params with the values of dotted names replaced, as `dvc exp run -S` would; unknown names are refused."""
    changed = deepcopy(dict(document))
    for name, value in overrides.items():
        *parents, last = name.split(".")
        section = changed
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise UserError(f"{name} cannot be set: {parent} is a value in params.yaml and no section")
        section[last] = value
    return parse_params(changed)


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml of the current folder."""
    return parse_params(read_yaml(path))


def read_yaml(path: Path) -> Any:  # noqa: ANN401  # whatever the file holds
    """Read a YAML file; raise UserError if it is missing or not YAML."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is not in {Path.cwd()}: run this in the project's top folder") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
