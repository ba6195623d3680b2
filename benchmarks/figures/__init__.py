"""How each figure of ``benchmarks/speed.py`` is measured: one module for each kind of measurement."""

import os

# Before numpy's and TensorFlow's first import, here and in the processes that are started: a core is what is measured.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
