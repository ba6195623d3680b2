"""What the bridges to plants have in common: where values belong, readings on their way to Kafka, what is told of it.

The bridges themselves are files in ``stream/sources``: ``mqtt`` and ``opcua``.
"""
