"""Damaged files of every kind, run through the commands that read them.

    python -m tests.fuzz --count=2000

See `docs/reliability.md` for what is promised and the counts.
"""
