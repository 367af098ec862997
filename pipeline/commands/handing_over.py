"""A trained model as one file, and predictions from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.commands.options import Device, Root
from pipeline.errors import UserError
from pipeline.runtime import progress


def export_model(
    root: Root,
    task: Annotated[str, typer.Option(help="The task's name.")],
    model: Annotated[str, typer.Option(help="The model's name, as in the report.")],
    out: Annotated[Path, typer.Option(help="The file to write, NAME.safetensors.")],
    config: Annotated[
        Path | None,
        typer.Option(help="The run's config; by default the one that the report wrote down."),
    ] = None,
    weights_dir: Annotated[
        str | None, typer.Option(help="Folder of local weights; by default the config's.")
    ] = None,
    embed: Annotated[
        Literal["auto", "all", "none"],
        typer.Option(
            help="Which encoders' weights go into the file: auto, those that may be handed on as "
            "far as their licence is known; all; none. The others are named with their SHA-256, "
            "and whoever predicts needs them."
        ),
    ] = "auto",
    onnx: Annotated[
        Path | None,
        typer.Option(
            help="Also write each encoder and each model as ONNX into this folder, compared with "
            "PyTorch (needs the extra `onnx`)."
        ),
    ] = None,
) -> None:
    """Write a validated model as one file, which turns a raw slide into a prediction.

    In it are the models of all folds, the encoders' weights, what the tiles must be like, the
    calibration, what the training cohort looked like, the results with their intervals, and the
    licences. Next to it, NAME.md says the same to people. The file holds no Python objects.

    Run the workflow to its end first. Then, for instance:

      python -m pipeline export-model --root results/demo --task survival --model shazam_v2
      --out survival.safetensors
    """
    from pipeline.config.reading import load
    from pipeline.files.artifacts import write_text
    from pipeline.prediction import export, export_members
    from pipeline.prediction.markdown import model_card
    from pipeline.prediction.model_file import read_model
    from pipeline.prediction.onnx_export import write_onnx

    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: the file must be called NAME.safetensors")
    settings = load(config or _written_down(root))
    place = weights_dir or settings.extraction.weights_dir
    source = export_members.Source(root, settings, task, model, place)
    with progress.bar():
        card = export.export(source, out, embed)
    write_text(out.with_suffix(".md"), model_card(card, out.name))
    typer.echo(
        f"{out}: {len(card.members)} models, {out.stat().st_size / 1e6:,.1f} MB, "
        f"checksum {card.checksum[:16]}; {out.with_suffix('.md').name} says what it is"
    )
    for one in card.encoders:
        if one.weights == "referenced":
            typer.echo(f"  the weights of {one.name} are not in it: {one.licence or 'no licence'}")
    for line in card.restrictions:
        typer.echo(f"  {line}")
    if onnx is not None:
        with progress.bar():
            found = write_onnx(read_model(out), onnx, place)
        worst = max(one.difference for one in found)
        typer.echo(f"{onnx}: {len(found)} ONNX files, at most {worst:.1g} off PyTorch")


def _written_down(root: Path) -> Path:
    path = root / "report" / "config.yaml"
    if not path.is_file():
        raise UserError(
            f"{path}: not there; run the workflow to its end, or give its config with --config"
        )
    return path


def predict(
    slides: Annotated[
        list[Path] | None, typer.Argument(help="Slide files; each is a case of its own.")
    ] = None,
    model: Annotated[Path, typer.Option(help="The file that export-model wrote.")] = Path(
        "model.safetensors"
    ),
    out: Annotated[Path, typer.Option(help="The folder of all that is written.")] = Path(
        "predictions"
    ),
    sheet: Annotated[
        Path | None,
        typer.Option(
            help="Instead of slide files: a CSV or TSV with the column `path`, and if you like "
            "`slide_id`, `case_id` (slides of a case make one prediction) and `mpp`."
        ),
    ] = None,
    mpp: Annotated[
        float | None,
        typer.Option(min=0.01, help="µm per pixel, for slides whose file does not say."),
    ] = None,
    fold: Annotated[
        int | None, typer.Option(min=0, help="Only the models of this fold; by default all.")
    ] = None,
    weights_dir: Annotated[
        str | None,
        typer.Option(help="Folder of encoder weights that are not in the file: DIR/<encoder>/."),
    ] = None,
    all_tiles: Annotated[
        bool,
        typer.Option(
            "--all-tiles",
            help="Encode every tile, for a map without gaps. The prediction stays that of the "
            "tiles which the model reads.",
        ),
    ] = False,
    maps: Annotated[
        bool, typer.Option(help="Write a heat map, a GeoJSON and a page for each slide.")
    ] = True,
    covariates: Annotated[
        Path | None,
        typer.Option(
            help="For a model that reads covariates: a CSV or TSV with the column `case_id` and "
            "those that the model reads, a row a case; an empty cell is a missing value."
        ),
    ] = None,
    device: Device = "auto",
    workers: Annotated[
        int, typer.Option(min=0, help="Threads that may work at once; 0: all that there are.")
    ] = 0,
) -> None:
    """Predict from raw slides with an exported model: tissue, tiles, encoder, models, one process.

    Writes predictions.csv, with a line for every slide: the prediction with its interval, whether
    the slide is like those of the training cohort, or why there is no prediction. And for each
    slide SLIDE.html (open it in a browser), SLIDE.png (the heat map) and SLIDE.geojson (drag it
    onto the slide in QuPath). members.csv has what each model of the ensemble says.

    No network, no config and no teachers are needed beyond the file, unless its card says that an
    encoder's weights must be fetched. A GPU is used if there is one. A model of covariates alone
    reads no slides: give none, and the cases of --covariates are predicted. For instance:

      python -m pipeline predict scans/*.svs --model survival.safetensors --out predictions/
    """
    from pipeline.prediction.covariates import read_given
    from pipeline.prediction.model_file import read_model
    from pipeline.prediction.run import Options, run, run_cases
    from pipeline.prediction.sheet import read_slides
    from pipeline.runtime.cpu_budget import cpu_budget

    file = read_model(model)
    options = Options(out, device, cpu_budget(workers), weights_dir, fold, all_tiles, maps, mpp)
    if not file.card.encoders:
        if slides or sheet is not None:
            raise UserError(f"{model}: reads no slides, only --covariates; leave them out")
        table = run_cases(file, read_given(covariates, file.card.covariates, None), options)
        for row in table.to_dict("records"):
            typer.echo(f"  {row['case_id']}: {row['prediction']}")
        typer.echo(f"{len(table)} cases predicted; {out / 'predictions.csv'}")
        return
    given = read_slides(slides or [], sheet)
    cases = {slide.case_id for slide in given}
    columns = read_given(covariates, file.card.covariates, cases)
    with progress.bar():
        table = run(file, given, options, columns)
    for row in table.to_dict("records"):
        said = row["prediction"] if row["status"] == "ok" else f"{row['status']}: {row['reason']}"
        unlike = " (unlike the training cohort)" if row["unfamiliar"] is True else ""
        typer.echo(f"  {row['slide_id']}: {said}{unlike}")
    done = int((table["status"] == "ok").sum())
    typer.echo(f"{done} of {len(table)} slides predicted; {out / 'predictions.csv'}")
    if not done:
        raise typer.Exit(1)
