"""The figures of detection: runs the suites of public recordings over DATA_DIR, one fixed configuration a suite.

    python benchmarks/quality.py DATA_DIR --scores quality-output --json quality.json

DATA_DIR holds a folder for each suite (nab, skab, tep, asd, smap_msl, magnetic_tile; virtual_data reads tep) or is one
of them; what is not there is left out and named. An interrupted run goes on where it stopped if it writes its scores.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from models.suites.running import SUITES
from stream.commands.evaluate import run_evaluate


def main() -> int:
    """Run what is there; 0 if every bar was met."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, metavar="DATA_DIR")
    parser.add_argument("--suite", action="append", choices=sorted(SUITES), help="only this one; may be repeated")
    parser.add_argument("--detector", help="another than the suite's own")
    parser.add_argument("--scores", type=Path, default=Path("quality-output"), help="where per-row scores go")
    parser.add_argument("--json", type=Path, dest="json_file", help="write one record a figure")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int)
    given = parser.parse_args()
    names = given.suite or [name for name in SUITES if SUITES[name].where(given.folder) != given.folder]
    if not names:
        parser.error(f"{given.folder} holds none of the folders {', '.join(SUITES)}: name a --suite")
    for name in [name for name in SUITES if name not in names and not given.suite]:
        print(f"{name}: not in {given.folder}, left out")
    return run_evaluate(
        names,
        given.folder,
        detector=given.detector,
        scores=given.scores,
        json_file=given.json_file,
        seed=given.seed,
        processes=given.processes,
    )


if __name__ == "__main__":
    sys.exit(main())
