"""Measures everything that needs a GPU, in one command with a time limit: `sh benchmarks/gpu.sh`.

run.py      the command: starts each step as a process, saves its results at once, prints a table
steps.py    the list of steps
table.py    the table
work.py     the process of a step; the measurements are in the other modules
ballast.py  a process that holds the rest of the card's memory

The first three import nothing but the standard library.
"""
