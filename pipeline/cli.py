"""`python -m pipeline <stage> …`: one thin subcommand per stage.

The workflow's rules call these; so can a person.
"""

from __future__ import annotations

import sys

import typer

from pipeline.commands import handing_over, study, tools
from pipeline.commands.declared import command
from pipeline.errors import SlideError, UserError
from pipeline.runtime import machine_errors
from pipeline.runtime.stages import STAGES

app = typer.Typer(
    help="From whole-slide images to a compared, cross-validated student of several teachers. "
    "`run` runs the stages in order, as `snakemake` does in a clone; most other commands are one "
    "stage each, as the rules call it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
cohort = typer.Typer(help="Check the slide sheet, or draw the embedded cohort.")
teachers = typer.Typer(help="List the known teachers and check one before a run.")
app.add_typer(cohort, name="cohort")
app.add_typer(teachers, name="teachers", invoke_without_command=True)

teachers.callback()(tools.teachers_list)
teachers.command("check")(tools.teachers_check)

app.command()(study.init)
app.command(context_settings=study.ANY_ARGUMENTS)(study.run)
for stage in STAGES:
    *group, name = stage.command.split()
    (cohort if group else app).command(name)(command(stage))
for tool in (
    tools.export,
    tools.slide_student,
    tools.slide_retrieval,
    tools.attention,
    tools.plan,
    tools.clean,
    tools.models,
    tools.schema,
):
    app.command()(tool)
app.command()(handing_over.export_model)
app.command()(handing_over.predict)


def main() -> None:
    """Run the command line.

    A user's mistake is a message and exit code 2, a failure of the machine a message and exit
    code 1; only what nobody expects is a traceback.
    """
    try:
        app()
    except (UserError, SlideError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        said = machine_errors.remedy(error)
        if said is None:
            raise
        print(f"error: {said}", file=sys.stderr)
        sys.exit(1)
