"""`python -m benchmarks.http_parity`: does a service earn what `simulate` says in process?"""

from benchmarks.http_parity.runs import main

main()
