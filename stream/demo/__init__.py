"""``headrace demo``: a broker, a plant, training, the real worker and its alerts, in a few minutes."""
