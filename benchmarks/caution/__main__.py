"""`python -m benchmarks.caution`; apart from what it runs, which its processes import by name."""

from benchmarks.caution.runs import main

main()
