"""How providers misbehave, and what becomes of the items: one server, one table for each subject.

* `server.py`: `MisbehavingServer`, the test server with one more rule: `misbehave(behaviour)`.
* `behaviours.py`: a behaviour is a function of the request and of the right answer's body to the
  bytes of an HTTP response (`Raw`), which may also be cut off, or never end.
* `test_*.py`: tables of `Row`s (`rows.py`). The next behaviour is one line in one of them.
"""
