"""Modules for processes of Ray: pytest collects none of them."""

collect_ignore_glob = ["stepcredit_*.py", "own_rule.py"]
