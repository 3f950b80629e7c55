"""Load tests of a running stack: open loop, measured from the intended send time.

workload   what to send, how fast, and what must hold (TOML)
schedule   when each message is due; mix: what it is; stamp: its header
generator  a process that keeps the schedule; sending: to Kafka; fleet: several of them
observer   reads outcomes; vitals: lag, CPU, memory and Triton's statistics
guard_calls  what each message's judging took, from the audit log
rows       what a run brings home
measure    joins what was sent with what was seen; figures: the numbers
thresholds, compare, knee, plan    judge the numbers (pure)
artefacts, charts, report          write them down
sweeping   a run a rate
run        one run from end to end
"""

from __future__ import annotations
