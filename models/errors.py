"""What can go wrong with models, and what the caller does about it.

ModelError
|-- UnknownDetector     no file of that name in models/detectors: name one that exists
|-- InvalidArtifact     refuse the artifact; what is serving stays
|-- StoreError          the model store does not answer, or has not what is asked for: the message says which
|-- TrainingError       not enough or unusable data: the message names the remedy
`-- DataError           a file or a column cannot be read: the message names it
"""

from __future__ import annotations


class ModelError(Exception):
    """Base of everything raised on purpose by ``models``."""


class UnknownDetector(ModelError):
    """The detector's name matches no file in ``models/detectors``."""


class InvalidArtifact(ModelError):
    """An artifact is damaged, incomplete or not for this program: refuse it, keep what serves."""


class StoreError(ModelError):
    """The store of models does not answer, refuses, or has no such version."""


class TrainingError(ModelError):
    """A detector cannot be trained on what was given."""


class DataError(ModelError):
    """A recording cannot be read."""
