"""`python -m stepcredit.engines.trl`: the same as `python -m stepcredit.launch`."""

from runpy import run_module

run_module("stepcredit.launch", run_name="__main__", alter_sys=True)
