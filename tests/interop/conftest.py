"""Keeps the program that imports TFMOT out of the tests' process."""

collect_ignore = ["tfmot_script.py"]
