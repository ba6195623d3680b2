"""Headrace's Grafana dashboards as code; ``deploy/grafana/generate.py`` writes them as JSON."""

from boards import asset, detectors, overview, pipeline

#: File name without its ending -> what builds the dashboard.
ALL = {
    "plant-overview": overview.build,
    "asset": asset.build,
    "detectors": detectors.build,
    "pipeline": pipeline.build,
}
