"""Every metric, declared once: name, meaning, labels, edges.

Histograms are in seconds and their edges include the objectives exactly, so
that "which share was under 250 ms" has an exact answer. Labels are bounded:
no id and no text is ever one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Multiset
from collections.abc import Sequence
from typing import Final

from prometheus_client import Counter, Gauge, Histogram, Info

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class BatchHistogram(Histogram):
    """A histogram that takes a batch's observations at the cost of a few.

    The library's `observe` takes two locks and looks through the edges for each.
    """

    def observe_all(self, amounts: Sequence[float]) -> None:
        """As `observe` of each amount."""
        self._sum.inc(sum(amounts))
        edges = self._upper_bounds
        for index, number in Multiset([bisect_left(edges, each) for each in amounts]).items():
            self._buckets[index].inc(number)


MESSAGES: Final = Counter("sluice_messages_total", "Messages ended, by how.", ["topic", "outcome"])
VERDICTS: Final = Counter(
    "sluice_verdicts_total",
    "Verdicts published, by the category that decided (empty when none crossed).",
    ["kind", "action", "category"],
)
DEGRADED: Final = Counter(
    "sluice_degraded_total", "Verdicts without full coverage.", ["status", "action"]
)
DEAD_LETTERS: Final = Counter("sluice_dead_letters_total", "Dead letters published.", ["reason"])
NOT_SEALED: Final = Counter(
    "sluice_content_not_sealed_total",
    "Messages whose content the policy wants encrypted and the audit log holds as a hash only.",
)
CLASSIFIER_ERRORS: Final = Counter(
    "sluice_classifier_errors_total", "Guard calls that failed.", ["guard", "reason"]
)
PUBLISH_ERRORS: Final = Counter(
    "sluice_publish_errors_total",
    "Publishing attempts the broker did not acknowledge, or not within five seconds.",
)
END_TO_END_SECONDS: Final = BatchHistogram(
    "sluice_end_to_end_seconds",
    "From the input's Kafka timestamp to the broker's acknowledgement of its verdict.",
    ["kind"],
    buckets=_SECONDS,
)
STAGE_SECONDS: Final = Histogram(
    "sluice_stage_seconds",
    "Time in one stage: wait, tokenise, infer, publish.",
    ["stage"],
    buckets=_SECONDS,
)
BATCH_MESSAGES: Final = Histogram(
    "sluice_batch_messages", "Messages judged together.", buckets=_ROWS
)
BATCH_BYTES: Final = Histogram(
    "sluice_batch_bytes", "Bytes judged together.", buckets=[4.0**power for power in range(4, 13)]
)
CALL_ROWS: Final = Histogram("sluice_call_rows", "Windows in one guard call.", buckets=_ROWS)
SCORE_CACHE: Final = Counter(
    "sluice_score_cache_total",
    "Messages by what answered: hit (recalled), shared (a call under way), miss (a call).",
    ["answer"],
)
FIRST_STAGE_WINDOWS: Final = Counter(
    "sluice_first_stage_windows_total",
    "Windows that a first stage saw, by end: settled by it, passed-on to the full guard.",
    ["end"],
)
IN_FLIGHT: Final = Gauge("sluice_in_flight_messages", "Messages taken, not yet acknowledged.")
LAG_MESSAGES: Final = Gauge(
    "sluice_consumer_lag_messages", "Messages behind the log's end.", ["topic", "partition"]
)
LAG_SECONDS: Final = Gauge(
    "sluice_consumer_lag_seconds", "Age of the oldest message not yet acknowledged.", ["topic"]
)
GUARD_HEALTH: Final = Gauge(
    "sluice_guard_health_log_probability",
    "Lowest log(P(safe) + P(unsafe)) in the last call of a guard that answers in words.",
    ["guard"],
)
AUDIT_EVENTS: Final = Counter(
    "sluice_audit_events_total", "Audit events acknowledged in their hash chain."
)
AUDIT_CHAINS: Final = Gauge("sluice_audit_chains", "Audit chains that more may be added to.")
AUDIT_CHAIN_BREAKS: Final = Counter(
    "sluice_audit_chain_breaks_total",
    "Chains broken off because publishing failed; their events were written again in another.",
)
CHAIN_HEAD_AGE_SECONDS: Final = Gauge(
    "sluice_chain_head_age_seconds", "How long a chain's progress has waited to be written down."
)
CHAIN_HEAD_ERRORS: Final = Counter(
    "sluice_chain_head_errors_total", "Attempts to write chain heads that failed."
)
READY: Final = Gauge("sluice_ready", "1 when a readiness check passes.", ["check"])
POLICY: Final = Info("sluice_policy", "The policy in force.")
POLICY_SWITCHES: Final = Counter(
    "sluice_policy_switches_total", "Times another policy came into force while running."
)
POLICY_REFUSED: Final = Counter(
    "sluice_policy_refused_total", "Records of the policies topic that could not be used."
)
GUARD: Final = Gauge("sluice_guard_info", "Guards in use; always 1.", ["name", "version", "digest"])
