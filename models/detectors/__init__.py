"""Detectors: one file each; the file's name is the detector's name in the plan.

TensorFlow reads its environment when it is first imported, which only training does: in the ``build`` of a file of this
package and in ``models.training`` and ``models.layers`` for them. So its settings are made here, where every such
import passes first. What the user has set stays.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"  # models.training relies on tf.function
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # its kernels differ from CPU to CPU: ours give the same bits
