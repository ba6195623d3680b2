"""Windows in, scores out: detectors, their training, calibration and artifacts. Knows no Kafka."""
