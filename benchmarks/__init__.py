"""What unipetl adds to a frozen transformer, in time and memory, beside other libraries: `python -m benchmarks`.

`NOTES.md` tells how it measures and how to read it. Everything here but `libraries/` runs without unipetl, since the
workers of other libraries run it in environments of their own.
"""
