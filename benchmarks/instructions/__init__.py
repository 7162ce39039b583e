"""`make bench-instructions`: what each server costs in instructions, counted by an emulated processor.

__main__.py   on the host: boots the kernel that counts, prints the table, compares with the baseline
guest.py      on that kernel: starts the servers, one after the other, and measures them
client.py     the load, a process of its own
figures.py    what was measured, as values: JSON, table, comparison (pure)
"""
