"""Specification of retention: what the audit log keeps, also where nothing can be sealed."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import structlog

from pipeline import codec, metrics, moderation, policy_file, retention, sealing
from pipeline.adapters import key_admin
from pipeline.adapters.keys import KeyFolder
from pipeline.errors import Misconfigured
from pipeline.events import Ciphertext, Kind, Retention
from pipeline.health import Health
from pipeline.key_watch import KeyWatch
from pipeline.policy import Policy
from pipeline.retention import Kept, content_hash
from pipeline.sealing import NoKeys, Sealed

from .fakes import NOON, TOPICS, Bench, FakeClock, json_value, message

KEY = bytes(range(32))
TEXT = "a text to keep"
ASK = message(TEXT, kind=Kind.COMPLETION, prompt="a question", tenant="acme")
POLICY = policy_file.parse(
    """
id = "p"
version = "1"
[default]
retention = "hash"
on_unavailable = "degrade"
degrade_after_s = 1.0
[tenants.acme]
retention = "encrypted"
[tenants.plain]
retention = "plain"
[tenants.routed.routes.chat]
retention = "encrypted"
""",
    name="test",
)


@dataclass(slots=True)
class Sealing:
    """A sealer that notes what it was given; `ids` are the keys it uses in turn."""

    ids: list[str] = field(default_factory=lambda: ["k1"])
    sealed: list[tuple[str, bytes, str]] = field(default_factory=list)
    error: Exception | None = None

    def seal(self, tenant: str, content: bytes, *, bound_to: str) -> Sealed:
        """As a key folder would."""
        if self.error is not None:
            raise self.error
        self.sealed.append((tenant, content, bound_to))
        key_id = self.ids.pop(0) if len(self.ids) > 1 else self.ids[0]
        return Sealed(key_id=key_id, ciphertext=sealing.seal(KEY, content, bound_to=bound_to))


def keep(asked: Retention, sealer: sealing.Sealer) -> Kept:
    """What is kept of the sample message."""
    return retention.keep(ASK, asked, "a:0:1", sealer)


def test_encrypted_keeps_sealed_content_and_context_and_the_hash() -> None:
    """Each is bound to its event and field."""
    sealer = Sealing()
    kept = keep(Retention.ENCRYPTED, sealer)
    assert (kept.retention, kept.key_id) == (Retention.ENCRYPTED, "k1")
    assert kept.content_hash == content_hash(TEXT)
    assert isinstance(kept.content, Ciphertext)
    assert isinstance(kept.context, Ciphertext)
    assert sealer.sealed == [
        ("acme", TEXT.encode(), "a:0:1/content"),
        ("acme", b"a question", "a:0:1/context"),
    ]


@pytest.mark.parametrize("asked", [Retention.NONE, Retention.HASH, Retention.PLAIN])
def test_no_other_retention_asks_for_a_key(asked: Retention) -> None:
    """Keys that are away trouble only those who want them."""
    sealer = Sealing(error=AssertionError("asked"))
    assert keep(asked, sealer).retention is asked


@pytest.mark.parametrize("asked", [each for each in Retention if each is not Retention.PLAIN])
def test_only_plain_keeps_plain_text(asked: Retention) -> None:
    """Neither a key that is missing nor a word of a later release lets the text out."""
    for sealer in (Sealing(), NoKeys()):
        assert TEXT.encode() not in repr(keep(asked, sealer)).encode()


def test_without_a_key_the_hash_alone_is_kept() -> None:
    """The event says what was done, not what was asked for."""
    kept = keep(Retention.ENCRYPTED, NoKeys())
    assert kept == Kept(retention=Retention.HASH, content_hash=content_hash(TEXT))


def test_a_rotation_between_content_and_context_leaves_one_key() -> None:
    """The event names one key, and both open with it."""
    kept = keep(Retention.ENCRYPTED, Sealing(ids=["k1", "k2"]))
    assert (kept.retention, kept.key_id) == (Retention.ENCRYPTED, "k2")
    kept = keep(Retention.ENCRYPTED, Sealing(ids=["k1", "k2", "k3"]))
    assert kept.retention is Retention.HASH


def test_the_policy_names_the_tenants_whose_content_is_sealed() -> None:
    """Also those with a route that asks for it; the default is the tenant without a name."""
    assert POLICY.sealing_tenants() == {"acme", "routed"}
    text = 'id = "p"\nversion = "1"\n[default]\nretention = "encrypted"\n[tenants.t]\n'
    assert policy_file.parse(text, name="t").sealing_tenants() == {"", "t"}


# In the flow ------------------------------------------------------------------


@pytest.fixture
def policy(shipped_policy: Policy) -> Policy:
    """Tenants with each retention."""
    return POLICY


def watched(sealer: sealing.Sealer, clock: FakeClock) -> tuple[KeyWatch, Health]:
    """A watch over a sealer, and the health it tells."""
    health = Health(["keys"])
    return KeyWatch(sealer, health, clock), health


def detail(health: Health) -> str:
    """What readiness says of the keys; the check itself always passes."""
    ok, body = health.ready()
    assert ok
    return str(body["keys"]["detail"])


async def test_the_flow_seals_what_the_policy_says(
    bench: Bench, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """From a taken message to an audit event that only its tenant's key opens."""
    folder = tmp_path_factory.mktemp("flow") / "keys"
    key_admin.create(folder, "acme", now=NOON)
    keys = KeyFolder(folder)
    bench.policy, bench.sealer = POLICY, keys
    flow = bench.flow()
    values = [json_value("unsafe words", tenant=tenant) for tenant in ("acme", "plain", "x")]
    await flow.judge([bench.inbound(flow, n, value) for n, value in enumerate(values)])
    records = bench.publisher.to(TOPICS.audit)
    assert [b"unsafe words" in (record.value or b"") for record in records] == [False, True, False]
    events = [codec.decode_audit(record.value or b"", bench.schemas) for record in records]
    assert [event.retention.value for event in events] == ["encrypted", "plain", "hash"]
    assert sealing.opened(events[0], keys).content == b"unsafe words"
    assert {event.content_hash for event in events} == {content_hash("unsafe words")}


async def test_a_missing_key_changes_no_verdict_and_lets_no_text_out(
    bench: Bench, clock: FakeClock
) -> None:
    """Metric, one log line and readiness say it; the messages are acknowledged as ever."""
    watch, health = watched(NoKeys(), clock)
    bench.policy, bench.sealer = POLICY, watch
    before = metrics.NOT_SEALED._value.get()
    flow = bench.flow()
    with structlog.testing.capture_logs() as logs:
        await flow.judge(bench.batch(flow, "fine", "unsafe secretword", tenant="acme"))
    assert [verdict.action.value for verdict in bench.verdicts()] == ["allow", "allow"]
    assert bench.commits.acknowledged == [0, 1]
    records = bench.publisher.to(TOPICS.audit)
    events = [codec.decode_audit(record.value or b"", bench.schemas) for record in records]
    assert {(e.retention, e.content, e.key_id) for e in events} == {(Retention.HASH, None, None)}
    assert not any(b"secretword" in (record.value or b"") for record in bench.publisher.records)
    assert metrics.NOT_SEALED._value.get() == before + 2
    assert [log["event"] for log in logs if "seal" in log["event"]] == ["content-not-sealed"]
    assert "secretword" not in repr(logs)
    assert "'acme'" in detail(health)
    assert "sluice audit keys create" in detail(health)


def test_the_log_line_is_limited_and_counts(clock: FakeClock) -> None:
    """One line a minute, which says how many messages it stands for."""
    watch, _ = watched(NoKeys(), clock)
    with structlog.testing.capture_logs() as logs:
        for _ in range(130):
            with pytest.raises(Misconfigured):
                watch.seal("acme", b"x", bound_to="x")
            clock.advance(1.0)
    assert [log["messages"] for log in logs] == [1, 60, 60]


def test_readiness_recovers_when_the_key_comes(clock: FakeClock) -> None:
    """The tenant is no longer named; a crowd of tenants is counted, not listed."""
    sealer = Sealing(error=Misconfigured("no key", remedy="Make one"))
    watch, health = watched(sealer, clock)
    for tenant in ["a", "b", "c", "d", "e", "x" * 500]:
        with pytest.raises(Misconfigured):
            watch.seal(tenant, b"x", bound_to="x")
    assert "and 3 more" in detail(health)
    assert len(detail(health)) < 400
    sealer.error = None
    for tenant in ["a", "b", "c", "d", "e", "x" * 500]:
        watch.seal(tenant, b"x", bound_to="x")
    assert detail(health) == "what the policy wants encrypted is"


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("broken"), ValueError("odd")])
def test_a_key_store_that_breaks_costs_no_verdict(error: Exception, clock: FakeClock) -> None:
    """Whatever it raises, the hash is kept."""
    watch, health = watched(Sealing(error=error), clock)
    assert keep(Retention.ENCRYPTED, watch).retention is Retention.HASH
    assert "'acme'" in detail(health)


def test_missing_keys_are_told_at_the_start(
    clock: FakeClock, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Before the first message of such a tenant comes."""
    folder = tmp_path_factory.mktemp("start") / "keys"
    key_admin.create(folder, "acme", now=NOON)
    keys = KeyFolder(folder)
    watch, health = watched(keys, clock)
    with structlog.testing.capture_logs() as logs:
        watch.expect(keys, ["acme", "globex"])
    assert [log["tenants"] for log in logs] == [["globex"]]
    assert "'globex'" in detail(health)
    assert "'acme'" not in detail(health)


async def test_an_unscanned_message_is_sealed_as_well(
    bench: Bench, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No guard saw it, and its text is no more public for that."""
    case = moderation.admit(
        moderation.Received(message=ASK, position=bench.commits.slot(3).position, received_at=NOON),
        POLICY,
        moderation.Intake(max_text_bytes=100, max_future_s=1.0),
    )
    stamp = moderation.Stamp(worker_id="w", now=NOON)
    audit = moderation.unscanned(case, "away", stamp, Sealing()).audit
    assert audit.retention is Retention.ENCRYPTED
    assert moderation.unscanned(case, "away", stamp).audit.retention is Retention.HASH
