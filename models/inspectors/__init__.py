"""Inspectors: detectors that read pictures; one file each, the file's name is its name in the plan.

As in ``models.detectors``, Keras is imported inside of ``build`` alone, and TensorFlow's environment is set before.
"""

import models.detectors  # noqa: F401  # sets TensorFlow's environment before its first import
