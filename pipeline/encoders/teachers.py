"""What teachers there are, which are ready here, and the preflight of one before a run.

The list needs no torch. The preflight does all that extraction would do short of slides, so that a
missing token, a gate, a licence or a wrong file is found before the first GPU job.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.config.extraction import TeacherConfig
from pipeline.encoders import registry, weight_files
from pipeline.encoders.registry import HUB_FILES, WEIGHT_SUFFIXES, Model, Row
from pipeline.encoders.slide_level import registry as slides
from pipeline.errors import UserError

ROUNDED = 10_000  # parameters: half a unit in the last place of a count in millions


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A known model, for the list.

    Attributes:
        name, title: as in the registry.
        dims: output dimension by pooling, the authors' first.
        params: parameters.
        licence: in short.
        gated: whether access must be asked for; None where sources disagree.
        restricted: the licence restricts what is trained on its outputs.
        input: tile size and scale, e.g. `224 px at 0.5 µm/px`; of a slide encoder the tile teacher
            that it reads.
        ready: where its weights are here, or what it lacks.
        note: what a user should know.
    """

    name: str
    title: str
    dims: dict[str, int]
    params: int
    licence: str
    gated: bool | None
    restricted: bool
    input: str
    ready: str
    note: str


@dataclasses.dataclass(frozen=True)
class Check:
    """One step of the preflight.

    Attributes:
        name: of the step.
        ok: None where it does not apply.
        detail: what was found, or what to do.
        facts: what was found, for the artefact.
    """

    name: str
    ok: bool | None
    detail: str
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def list_teachers(weights_dir: str | None = None) -> list[Teacher]:
    """All rows of the registry, with what is ready on this machine."""
    rows: list[tuple[Row, str]] = [
        (row, f"{row.crop} px at {'/'.join(f'{m:g}' for m in row.mpp)} µm/px")
        for row in registry.models().values()
    ]
    rows += [(row, f"slide: {row.input}") for row in slides.slide_models().values()]
    return [
        Teacher(
            name=row.name,
            title=row.title,
            dims=row.poolings,
            params=row.params,
            licence=row.licence,
            gated=row.gated,
            restricted=row.derivative_restricted,
            input=seen,
            ready=readiness(row, weights_dir),
            note=row.note,
        )
        for row, seen in rows
    ]


def table(teachers: list[Teacher]) -> str:
    """The list as text with aligned columns."""
    heads = ("name", "dim", "params", "input", "access", "licence", "here")
    rows = [
        (
            t.name,
            " or ".join(map(str, t.dims.values())),
            f"{t.params / 1e6:,.1f} M" if t.params else "?",
            t.input,
            {True: "gated", False: "open", None: "gated?"}[t.gated],
            t.licence + (" (restricts students)" if t.restricted else ""),
            t.ready,
        )
        for t in teachers
    ]
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in [heads, *rows]
    ]
    return "\n".join(line.rstrip() for line in lines)


def readiness(row: Row, weights_dir: str | None) -> str:
    """Where a model's weights are on this machine, or what it lacks. Asks nobody outside."""
    if weights_dir:
        folder = Path(weights_dir).expanduser() / row.name
        if folder.is_dir() and any(p.suffix in WEIGHT_SUFFIXES for p in folder.iterdir()):
            return "weights_dir"
    if row.loader == "none":
        return "cannot be run here"
    if row.env:
        return f"needs envs/{row.env}.yaml"
    if _cached(row):
        return "hub cache"
    if row.distribution:
        return "Python package"
    if not row.hf_id:
        return "download by hand"
    if row.gated is not False and not _token():
        return "needs a token"
    return "on the hub"


def outlook(name: str, cfg: TeacherConfig, weights_dir: str | None = None) -> str:
    """What a configured teacher is and whether its weights can be had from here, in one line.

    Whether there is a token is said, never the token. Asks nobody outside.

    Args:
        name: its name in the config.
        cfg: its config, with any `source` but `import`.
        weights_dir: folder of local weights.
    """
    row = slides.row_of(name, cfg)
    if row is None:
        what = f"{cfg.source}'s {cfg.model or name}; licence: see its page"
    else:
        what = f"{row.title}; licence: {row.licence}"
        what += ", acknowledged" * (row.derivative_restricted and cfg.acknowledge_licence)
    needs = f"; needs envs/{row.env}.yaml" if row is not None and row.env else ""
    return f"{what}; {_weights_outlook(name, cfg, row, weights_dir)}{needs}"


def _weights_outlook(
    name: str, cfg: TeacherConfig, row: Row | None, weights_dir: str | None
) -> str:
    if cfg.weights == "random":
        return f"random weights from seed {cfg.seed}, which have learned nothing"
    if cfg.weights == "package" and row is not None:
        return f"weights: in the Python package {row.distribution}"
    if cfg.weights == "local":
        return f"weights: {weight_files.file_here(name, cfg, row, weights_dir)}"
    token = "there is a token" if _token() else "there is no token"
    if row is None:
        return f"weights: the hub's, as {cfg.source} names them; {token}"
    if _cached(row, cfg.revision):
        return "weights: in the hub's cache here"
    if not row.hf_id:
        return f"NOT READY: download its weights from {row.url} and set weights: local"
    if row.gated is False:
        return f"weights: {row.hf_id} on the hub, open to all"
    if _token():
        return f"weights: {row.hf_id} on the hub, gated; {token}, its rights are seen when asked"
    return (
        f"NOT READY: {row.hf_id} on the hub is gated and {token}: ask for access at "
        f"https://huggingface.co/{row.hf_id}, then set HF_TOKEN or run `hf auth login`"
    )


def check_teacher(name: str, cfg: TeacherConfig, weights_dir: str | None = None) -> Iterator[Check]:
    """The preflight of a teacher, step by step; it ends at the first step that fails.

    Args:
        name: the teacher's name in the config, or of a registry row.
        cfg: its config.
        weights_dir: folder of local weights.

    Yields:
        each step as it is done, so that a long download does not look like a halt.
    """
    for check in _steps(name, cfg, weights_dir):
        yield check
        if check.ok is False:
            return


def _steps(name: str, cfg: TeacherConfig, weights_dir: str | None) -> Iterator[Check]:
    if cfg.source == "import":
        yield Check("source", None, "imported features: checked when they are imported")
        return
    step = "registry"
    try:
        if cfg.source == slides.SLIDE:
            yield from _slide_steps(name, cfg, weights_dir)
            return
        row = registry.check(name, cfg)
        if row is not None:
            yield from _terms(row)
        step = "architecture"
        from pipeline.encoders import build, weights

        network = build.make_network(name, cfg, weights_dir)
        yield from _architecture(network.module, row, build.describe(network.transform))
        yield _access(cfg, row)
        step = "weights"
        source = weights.find(network.module, name, cfg, row, weights_dir)
        yield from _file(source, name, cfg, row)
        network = build.load_weights(network, name, cfg, source)
        if source.path is not None:
            yield Check("keys", True, f"every parameter of {source.path.name} has its place")
        step = "output"
        levels = registry.levels_of(name, cfg, ("low", "mid", "high"))
        encoder = build.finish(network, name, cfg, source, levels, "fp32", False, "cpu")
        yield _output(encoder, row, cfg)
    except UserError as error:
        yield Check(step, False, str(error))


def _terms(row: Row) -> Iterator[Check]:
    acknowledged = ", acknowledged" if row.derivative_restricted else ""
    yield Check("registry", True, f"{row.title}, {row.hf_id or row.url}", {"model": row.title})
    yield Check("licence", True, row.licence + acknowledged, {"licence": row.licence})


def _slide_steps(name: str, cfg: TeacherConfig, weights_dir: str | None) -> Iterator[Check]:
    """Of a slide encoder: the same, and a slide of made-up features through it."""
    import numpy as np

    from pipeline.encoders import weights
    from pipeline.encoders.slide_level import build

    row = slides.check(name, cfg)
    yield from _terms(row)
    module = build.make_network(row, cfg, row.input_dim)
    found = weights.count_parameters(module)
    right = found == row.params if row.loader == "timm" else True
    yield Check("parameters", right, f"{found:,} of {row.params:,}", {"parameters": found})
    yield _access(cfg, row)
    source = weights.find(module, name, cfg, row, weights_dir)
    yield from _file(source, name, cfg, row)
    if source.path is not None:
        weights.fill(module, source.path, row.layout)
        yield Check("keys", True, f"every parameter of {source.path.name} has its place")
    encoder = build.small(build.finish(module, row, name, cfg, source, "fp32", "cpu"))
    features = np.random.default_rng(0).standard_normal((9, row.input_dim)).astype(np.float16)
    coords = np.array([(x, y) for y in range(3) for x in range(3)]) * row.tile_px
    given = build.encode(encoder, features, coords, row.tile_px).values.shape[1]
    yield Check(
        "output",
        given == encoder.width,
        f"{given} of {encoder.width}, from the {row.input_dim} features of `{row.input}`",
        {"dims": {"high": given}, "pooling": encoder.pooling},
    )


def _architecture(module: Any, row: Model | None, transform: str) -> Iterator[Check]:
    from pipeline.encoders.remote import patch_side
    from pipeline.encoders.weights import count_parameters

    found = count_parameters(module)
    wanted = row.params if row else found
    # Of a network that is not built here only a rounded count is published.
    exact = row is None or row.loader == "timm"
    right = found == wanted if exact else abs(found - wanted) <= ROUNDED
    yield Check("parameters", right, f"{found:,} of {wanted:,}", {"parameters": found})
    if row and row.tokens:
        tokens = int(getattr(module, "num_prefix_tokens", 0))
        facts = {"prefix_tokens": tokens}
        yield Check("prefix tokens", tokens == row.tokens, f"{tokens} of {row.tokens}", facts)
        patch = patch_side(module.patch_embed.patch_size)
        yield Check("patch", patch == row.patch, f"{patch} px of {row.patch}", {"patch": patch})
    yield Check("transform", True, transform, {"transform": transform})


def _access(cfg: TeacherConfig, row: Row | None) -> Check:
    if cfg.weights != "hub" or row is None or not row.hf_id:
        return Check("access", None, f"weights: {cfg.weights}")
    if _cached(row, cfg.revision):
        return Check("access", True, "in the hub's cache")
    if row.gated is False:
        return Check("access", True, f"{row.hf_id} is open")
    if not _token():
        return Check(
            "access",
            False,
            f"{row.hf_id} is gated and there is no token: ask for access at "
            f"https://huggingface.co/{row.hf_id}, then set HF_TOKEN or run `hf auth login`",
        )
    return Check("access", True, "there is a token")


def _file(source: Any, name: str, cfg: TeacherConfig, row: Row | None) -> Iterator[Check]:
    """Hash and revision of the weights file, and how to hold on to them."""
    facts = {"weights": source.weights, "revision": source.revision, "identity": source.identity}
    if source.path is None:
        yield Check("weights", None, f"{source.weights}, {source.revision}", facts)
        return
    wanted = weight_files.wanted_hash(cfg, row)
    found = weight_files.check_hash(source.path, wanted)
    where = f"extraction.teachers.{name}"
    advice = "" if wanted else f"; to keep it, set {where}.sha256"
    facts |= {"sha256": found, "sha256_expected": bool(wanted)}
    yield Check("hash", True if wanted else None, f"SHA-256 {found}{advice}", facts)
    if source.weights == "hub":
        pinned = weight_files.wanted_revision(cfg, row) == source.revision
        advice = "" if pinned else f"; to pin it set {where}.revision: {source.revision}"
        yield Check("revision", True if pinned else None, source.revision + advice)


def _output(encoder: Any, row: Row | None, cfg: TeacherConfig) -> Check:
    import torch

    from pipeline.encoders.build import encode

    side = encoder.transform.resize
    ramp = torch.arange(side * side * 3, dtype=torch.int64) * 7 % 256
    tile = ramp.to(torch.uint8).reshape(1, side, side, 3)
    features = encode(encoder, tile)
    finite = all(bool(torch.isfinite(v).all()) for v in features.values())
    wanted = row.poolings[cfg.pooling or row.pooling] if row else encoder.dims["high"]
    right = encoder.dims["high"] == wanted
    dims = ", ".join(f"{k} {v}" for k, v in encoder.dims.items())
    facts = {
        "dims": dict(encoder.dims),
        "pooling": encoder.taps.pooling,
        "gflop_per_tile": float(encoder.facts["gflop_per_tile"]),
    }
    return Check("output", finite and right, f"{dims} of {wanted}; finite: {finite}", facts)


def _cached(row: Row, revision: str | None = None) -> bool:
    """Whether the hub's cache on this machine has the weights."""
    from huggingface_hub import try_to_load_from_cache

    files = (row.file,) if row.file else HUB_FILES
    found = (
        try_to_load_from_cache(row.hf_id, file, revision=revision or row.revision)
        for file in files
        if row.hf_id
    )
    return any(isinstance(path, str) for path in found)


def _token() -> bool:
    from huggingface_hub import get_token

    return bool(os.environ.get("HF_TOKEN") or get_token())
