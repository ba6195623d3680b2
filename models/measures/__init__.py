"""How good scores and alarms are, by the field's own measures; each module is one family.

``points`` rows against labels, and forecasts against what came; ``volume`` VUS; ``affiliation`` distances in time;
``nab`` the Numenta benchmark's score; ``changepoints`` SKAB's. Alarms and faults as a person counts them, one by one,
with delays and false alarms a day, are in ``models.evaluate``.

Point-adjusted F1 is left out on purpose: it calls a whole fault found when one of its rows is, and with long faults
random scores then reach 0.9 (Kim et al. 2022, Towards a Rigorous Evaluation of Time-series Anomaly Detection).
"""
