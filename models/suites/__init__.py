"""Public benchmarks as suites: a folder of recordings in, per-row scores and figures beside the published ones out.

A suite is a module with ``cases(folder)``, ``figures(judged)`` and a table of what others published. One fixed
configuration judges every case; nothing depends on a file's name or length. ``running`` does the work.
"""
