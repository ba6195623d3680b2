"""Windows in, scores out: detectors, their training, calibration and artifacts. Knows no Kafka."""

import os

# One thread a process for numpy's products, unless the user has set another number: they are too small to gain from a
# second, and the caller's executor already uses the other cores. BLAS reads this when numpy is first imported.
for _variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(_variable, "1")
