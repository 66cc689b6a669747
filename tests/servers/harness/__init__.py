"""Restarts real servers under load by running them again, and says what was lost.

A server is described in one small file beside this folder (`Server`); `trial.py`
is the experiment that is made with each of them; `process.py` (with `family.py`),
`log.py`, `load.py`, `in_flight.py` and `fastcgi.py` are its instruments;
`report.py` prints the outcome.
"""
