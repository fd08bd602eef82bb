"""`python -m benchmarks.plans`; apart from what it runs, which its processes import by name."""

from benchmarks.plans.runs import main

main()
