"""Bytes to alerts: from a Kafka topic through the pipeline to the sinks. Knows no Keras layer."""

import models  # noqa: F401  # caps the threads of BLAS, which reads that when numpy is first imported
