"""Runs stages in forked children, so that a hundred of them pay for their imports once.

Reads one JSON object a line, {"argv": …, "cwd": …, "log": …}, runs `python -m pipeline` with these
arguments in a process group of its own, and answers how it ended and whether a process of the group
outlived it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
import types

LINGERING_SECONDS = 20.0


def main() -> None:
    import cv2

    import pipeline.cohort.stage
    import pipeline.cohort.synthetic.aperio
    import pipeline.cohort.synthetic.painting
    import pipeline.encoder_distillation.stage
    import pipeline.evaluation.stage
    import pipeline.extraction.check
    import pipeline.extraction.imports
    import pipeline.extraction.stage
    import pipeline.folds.stage
    import pipeline.mapping.stage
    import pipeline.pretraining.stage
    import pipeline.report.stage
    import pipeline.slide_encoders.stage
    import pipeline.tiling.overview
    import pipeline.tiling.stage
    import pipeline.training.stage

    cv2.setNumThreads(1)
    # The tiny cohort has a hundred tiles: to see these twenty times shows nothing more.
    pipeline.encoder_distillation.stage.REGRESSED = 128
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), flush=True)


def run(argv: list[str], cwd: str, log: str) -> dict[str, object]:
    pid = os.fork()
    if pid == 0:
        child(argv, cwd, log)
    _, status = os.waitpid(pid, 0)
    return {"code": os.waitstatus_to_exitcode(status), "lingering": lingering(pid)}


def child(argv: list[str], cwd: str, log: str) -> None:
    code = 70
    try:
        os.setpgid(0, 0)
        os.chdir(cwd)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        # Workers of a stage would run the main module's file again; they need none of it.
        sys.modules["__main__"] = types.ModuleType("__main__")
        sys.argv = ["pipeline", *argv]
        from pipeline import cli

        cli.main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def lingering(group: int) -> bool:
    """Whether a process of the group goes on living without the one that it worked for."""
    until = time.monotonic() + LINGERING_SECONDS
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.02)
    os.killpg(group, signal.SIGKILL)
    return True


if __name__ == "__main__":
    main()
