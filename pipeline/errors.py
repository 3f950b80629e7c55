"""What can go wrong, and what to do then.

    SluiceError
    ├── Retryable               try again later: nothing is wrong with the message
    │   ├── Suspected               the guard fails on this message, and on no golden text
    │   └── DependencyUnavailable   a broker, Triton or registry does not answer
    │       └── Unanswered          no verdict came in time
    ├── Rejected                this one message can never be judged: dead letter
    ├── DeadLettered            a client's message became one; what the worker said
    ├── Unopenable              an audit event's sealed content cannot be read
    │   ├── KeyUnavailable          its key was erased, or is not in this key folder
    │   └── SealBroken              it was changed, or belongs to another event
    └── Misconfigured           a person must change something: stop, say what
        └── DeadLetterLimit     too many dead letters: stop before the topic drains

No message carries the text that was to be moderated.
"""

from __future__ import annotations

from enum import StrEnum


class SluiceError(Exception):
    """An error that says what happened and what to do about it."""

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        """The message, then the remedy."""
        return f"{self.message}. {self.remedy}" if self.remedy else self.message


class Retryable(SluiceError):
    """Nothing is wrong with the message: the same attempt may succeed later."""


class Suspected(Retryable):
    """The guard gave this message no answer, and passed its golden texts right after."""


class DependencyUnavailable(Retryable):
    """A broker, a Triton server or a registry does not answer."""


class Unanswered(DependencyUnavailable):
    """A client's message has no verdict yet; it stays published."""


class Misconfigured(SluiceError):
    """A setting, policy, card or deployment is wrong: a person must change it."""


class DeadLetterLimit(Misconfigured):
    """Dead letters passed their bound: the worker stops and nothing is lost."""


class Reason(StrEnum):
    """Why a message became a dead letter; the closed set used as metric label."""

    NULL_VALUE = "null-value"
    NOT_FRAMED = "not-framed"
    UNKNOWN_SCHEMA = "unknown-schema"
    BAD_AVRO = "bad-avro"
    BAD_JSON = "bad-json"
    BAD_ENCODING = "bad-encoding"
    WRONG_TYPE = "wrong-type"
    MISSING_FIELD = "missing-field"
    EMPTY_TEXT = "empty-text"
    OVERSIZE = "oversize"
    BAD_TIMESTAMP = "bad-timestamp"
    UNKNOWN_TENANT = "unknown-tenant"
    GUARD_REFUSED = "guard-refused"


class Rejected(SluiceError):
    """This one message can never be judged; it becomes a dead letter."""

    def __init__(self, reason: Reason, message: str, *, remedy: str) -> None:
        super().__init__(message, remedy=remedy)
        self.reason = reason


class DeadLettered(SluiceError):
    """What a client published became a dead letter: it was not judged.

    `reason` is a value of `Reason`, or one that a newer worker added; `detail`
    is the worker's explanation, with its remedy.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"the message is a dead letter ({reason}): {detail}", remedy="")
        self.reason = reason
        self.detail = detail


class Unopenable(SluiceError):
    """Sealed content cannot be read; the verdict and the chain are not touched by that."""


class KeyUnavailable(Unopenable):
    """The key is not to be had: erased for good (`erased`), or not in this key folder."""

    def __init__(self, message: str, *, remedy: str, erased: bool) -> None:
        super().__init__(message, remedy=remedy)
        self.erased = erased


class SealBroken(Unopenable):
    """A ciphertext was changed, moved from another event, or sealed with another key."""
