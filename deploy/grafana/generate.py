"""Write the dashboards as JSON: ``python deploy/grafana/generate.py``; with ``--check`` only say which differ.

The definitions are in ``boards``; the JSON in ``dashboards`` is what Grafana is provisioned with and is never edited by
hand. Built with Grafana's foundation SDK for Grafana 11.6; newer releases read it too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from boards import ALL

FOLDER: Final = Path(__file__).resolve().parent / "dashboards"


def rendered() -> dict[str, str]:
    """File name -> its text."""
    files = {}
    for name, build in ALL.items():
        board = build().build()
        for number, panel in enumerate(board.panels or (), 1):
            panel.id_val = number  # links to a panel go by it
        files[f"{name}.json"] = json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return files


def main(arguments: list[str]) -> int:
    """Write, or with ``--check`` compare; the exit status."""
    made = rendered()
    if arguments == ["--check"]:
        wrong = sorted(
            {path.name for path in FOLDER.glob("*.json")}.symmetric_difference(made)
            | {name for name, text in made.items() if (FOLDER / name).is_file() and (FOLDER / name).read_text() != text}
        )
        if wrong:
            print(f"not as generated: {', '.join(wrong)}; run {Path(__file__).name} without --check", file=sys.stderr)
        return int(bool(wrong))
    FOLDER.mkdir(exist_ok=True)
    for stale in {path.name for path in FOLDER.glob("*.json")} - made.keys():
        (FOLDER / stale).unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
