"""Bytes to alerts: from a Kafka topic through the pipeline to the sinks. Knows no Keras layer."""
