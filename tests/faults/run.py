"""Run the faults and print what came of them: ``make faults``, ``make faults ARGS="--only 1 --long"``.

Each test leaves a record (fault, tries, lost, repeated, recovery_s, broker), which ``--json`` keeps and ``--write``
puts into docs/reliability.md as its table. What is not known here goes to pytest. The exit status is that of pytest, of
the worst run where ``--times`` asks for many.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_PAGE = _HERE.parents[1] / "docs" / "reliability.md"
_BEGIN, _END = "<!-- faults: written by make faults -->", "<!-- end of faults -->"
_BROKERS = {"embedded": "embedded", "apache": "Apache Kafka", "three": "Apache Kafka, three", "": "none"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and write what was asked for."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__, add_help=True)
    parser.add_argument("--only", action="append", type=int, default=[], metavar="N", help="this fault (or more)")
    parser.add_argument("--long", action="store_true", help="the long forms: an hour for the soak, minutes for others")
    parser.add_argument(
        "--soak-minutes",
        type=float,
        metavar="M",
        help="length of the soak (7; 60 with --long)",
    )
    parser.add_argument("--times", type=int, default=1, help="so many runs after each other (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the records, one JSON object a line")
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    options, pytest_options = parser.parse_known_args(arguments)
    with tempfile.TemporaryDirectory(prefix="headrace-faults-") as folder:
        path = options.json or Path(folder) / "faults.jsonl"
        path.unlink(missing_ok=True)
        environment = {**os.environ, "HEADRACE_FAULTS_JSON": str(path.resolve())}
        environment["HEADRACE_FAULTS_ONLY"] = ",".join(map(str, options.only))
        environment["HEADRACE_FAULTS_LONG"] = "1" if options.long else ""
        if options.soak_minutes:
            environment["HEADRACE_FAULTS_SOAK_MINUTES"] = f"{options.soak_minutes:g}"
        command = [sys.executable, "-m", "pytest", str(_HERE), "-p", "no:cacheprovider", *pytest_options]
        worst = 0
        for run in range(1, options.times + 1):
            began = time.monotonic()
            status = subprocess.run(command, env=environment, check=False).returncode
            worst = max(worst, status)
            took_s = time.monotonic() - began
            print(f"run {run} of {options.times}: {'green' if not status else 'failed'}, {took_s:.0f} s", flush=True)
        records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    lines = table(records)
    print("\n".join(lines))
    if options.write:
        _write(lines)
    return worst


def table(records: Sequence[dict[str, Any]]) -> list[str]:
    """The records as Markdown, those of the same test of several runs together."""
    rows: dict[tuple[int, str, str], list[dict[str, Any]]] = {}
    for record in records:
        rows.setdefault((record["fault"], record["what"], record["broker"]), []).append(record)
    lines = [
        "| | Fault | Broker | Tries | Lost | Repeated | Recovered within | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (number, what, broker), held in sorted(rows.items()):
        recovery_s = max((each["recovery_s"] for each in held if each["recovery_s"] is not None), default=None)
        tries, lost, repeated = (sum(each[key] for each in held) for key in ("tries", "lost", "repeated"))
        within = "" if recovery_s is None else f"{recovery_s:.1f} s"
        state = held[-1]["note"] if all(each["passed"] for each in held) else "**failed**"
        where = _BROKERS.get(broker, broker)
        lines.append(f"| {number} | {what} | {where} | {tries} | {lost} | {repeated} | {within} | {state} |")
    return lines


def _write(lines: Sequence[str]) -> None:
    page = _PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    _PAGE.write_text("\n".join([before + _BEGIN, "", *lines, "", _END]) + after, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
