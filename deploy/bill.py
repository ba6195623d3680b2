"""What a worker is made of: a bill of materials (``make sbom``), and whether it has known holes (``make audit``).

Both look at what is installed in the environment of this Python, and of that at what ``headrace`` itself needs: neither
tests nor tools are in the bill. The tools that do the work are in an environment of their own (``--tools``).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = "headrace"
#: The exit status where nothing could be checked: neither good (0) nor bad (1).
UNREACHABLE = 3


def needed(name: str = ROOT) -> dict[str, str]:
    """Name and version of all that ``name`` needs to run, itself included, as it is installed here."""
    found: dict[str, str] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(canonicalize_name(name), frozenset())]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        held = metadata.distribution(name)
        found[name] = held.version
        waiting += _requirements(held, extras)
    return found


def _requirements(held: metadata.Distribution, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    for text in held.requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield canonicalize_name(requirement.name), frozenset(requirement.extras)


def trimmed(bill: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """A CycloneDX bill of an environment, with only the components of ``names`` and the edges between these."""
    kept = [held for held in bill["components"] if canonicalize_name(held["name"]) in names]
    refs = {held["bom-ref"] for held in kept} | {bill["metadata"].get("component", {}).get("bom-ref")}
    edges = [
        {**edge, "dependsOn": [ref for ref in edge.get("dependsOn", ()) if ref in refs]}
        for edge in bill.get("dependencies", ())
        if edge["ref"] in refs
    ]
    return {**bill, "components": kept, "dependencies": edges}


def write_bill(tools: Path, output: Path) -> int:
    """Write the bill as CycloneDX JSON, with licences."""
    names = set(needed()) - {ROOT}
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "environment.json"
        command = [str(tools / "cyclonedx-py"), "environment", "--pyproject", "pyproject.toml", "--output-reproducible"]
        subprocess.run([*command, "--output-file", str(whole), sys.executable], check=True)
        bill = trimmed(json.loads(whole.read_text()), names)
    absent = names - {canonicalize_name(held["name"]) for held in bill["components"]}
    if absent:
        print(f"sbom: not in the bill: {', '.join(sorted(absent))}", file=sys.stderr)
        return 1
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(bill, indent=1) + "\n")
    print(f"sbom: {len(bill['components'])} components in {output}")
    return 0


def audit(tools: Path) -> int:
    """Ask the advisory database of PyPI about each; 0 none known, 1 some are, ``UNREACHABLE`` nobody could be asked."""
    pinned = {name: version for name, version in needed().items() if name != ROOT}
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "requirements.txt"
        listed.write_text("".join(f"{name}=={version}\n" for name, version in sorted(pinned.items())))
        command = [str(tools / "pip-audit"), "--requirement", str(listed), "--no-deps", "--disable-pip"]
        command += ["--format", "json", "--progress-spinner", "off", "--timeout", "15"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return verdict(done.stdout, done.stderr, len(pinned))


def verdict(output: str, said: str, asked: int) -> int:
    """What pip-audit's answer means; it exits with 1 both for a hole that it found and for a service that is away."""
    try:
        answered = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        answered = []
    skipped = [held for held in answered if "skip_reason" in held]
    if len(skipped) == len(answered):  # a mirror without advisories says of each that it does not know it
        reason = skipped[0]["skip_reason"] if skipped else (said.strip().splitlines() or ["it said nothing"])[-1]
        print(f"audit: nothing was checked, the advisory service gives no answers: {reason[:300]}", file=sys.stderr)
        return UNREACHABLE
    holes = [(held, hole) for held in answered for hole in held.get("vulns", ())]
    for held, hole in holes:
        mended = ", ".join(hole.get("fix_versions", ())) or "no release yet"
        print(f"audit: {held['name']} {held['version']}: {hole['id']}, mended in {mended}")
    for held in skipped:
        print(f"audit: {held['name']} was not checked: {held['skip_reason']}")
    print(f"audit: {len(answered) - len(skipped)} of {asked} packages checked, {len(holes)} known holes")
    return 1 if holes or skipped or len(answered) < asked else 0


def main() -> int:
    """``bill.py sbom`` or ``bill.py audit``; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("sbom", "audit"))
    parser.add_argument("--tools", type=Path, required=True, help="folder with cyclonedx-py and pip-audit")
    parser.add_argument("--output", type=Path, default=Path("build/headrace.cdx.json"))
    options = parser.parse_args()
    return audit(options.tools) if options.what == "audit" else write_bill(options.tools, options.output)


if __name__ == "__main__":
    sys.exit(main())
