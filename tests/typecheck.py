"""The run-time type checker of the test suite: beartype, with an int accepted where a float is asked (PEP 484)."""

from beartype import BeartypeConf, beartype

checker = beartype(conf=BeartypeConf(is_pep484_tower=True))
