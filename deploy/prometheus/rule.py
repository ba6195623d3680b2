"""Write the rules as the Prometheus operator takes them: ``python deploy/prometheus/rule.py``. A test compares them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
RULES: Final = ROOT / "deploy" / "prometheus" / "headrace.rules.yaml"
RESOURCE: Final = ROOT / "k8s" / "overlays" / "production" / "prometheusrule.yaml"
_HEAD: Final = """\
# Made by deploy/prometheus/rule.py from deploy/prometheus/headrace.rules.yaml: change it there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: headrace
spec:
"""


def rendered() -> str:
    """The resource's text: the rules' own, indented."""
    text = RULES.read_text()
    lines = text[text.index("groups:") :].splitlines()
    return _HEAD + "".join(f"  {line}\n" if line else "\n" for line in lines)


def main() -> int:
    """Write it."""
    RESOURCE.write_text(rendered())
    return 0


if __name__ == "__main__":
    sys.exit(main())
