"""How aiokafka's clients reach the broker, and what is said when they do not."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)

from pipeline.adapters import tls
from pipeline.errors import DependencyUnavailable, Misconfigured, SluiceError
from pipeline.settings import KafkaSettings

_CONNECTED_WITHIN_S: Final = 10.0
_ASKED_AGAIN_WITHIN_S: Final = 3.0

_UNAUTHENTICATED: Final = (
    AuthenticationFailedError,
    IllegalSaslStateError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
_FORBIDDEN: Final = (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
)


def security(settings: KafkaSettings) -> dict[str, Any]:
    """The connection arguments that every aiokafka client takes; raises Misconfigured."""
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "security_protocol": settings.security_protocol,
    }
    if settings.security_protocol.endswith("SSL"):
        arguments["ssl_context"] = tls.trusting(settings.ca_file, setting="kafka.ca_file")
    if settings.security_protocol.startswith("SASL") and settings.password:
        arguments |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.username,
            "sasl_plain_password": settings.password.get_secret_value(),
        }
    return arguments


async def connected(
    start: Callable[[], Any],
    stop: Callable[[], Any],
    settings: KafkaSettings,
    *,
    again: bool = False,
) -> None:
    """Start an aiokafka client; within seconds raises DependencyUnavailable or Misconfigured.

    `again`: these settings have led to a connection before, so that a broker which turns
    us away now may soon stop doing so: that is then DependencyUnavailable too.
    """
    try:
        async with asyncio.timeout(_CONNECTED_WITHIN_S):
            await start()
    except asyncio.CancelledError:
        await stop()  # else its sockets and tasks stay until they are collected
        raise
    except (KafkaError, TimeoutError, OSError) as error:
        await stop()
        reason = await _reason(settings) if isinstance(error, KafkaConnectionError) else None
        failure = failed(settings, reason or error)
        if again and isinstance(failure, Misconfigured):
            failure = DependencyUnavailable(failure.message, remedy=failure.remedy)
        raise failure from error


@asynccontextmanager
async def open_admin(
    settings: KafkaSettings, *, within_s: float = 40.0
) -> AsyncIterator[AIOKafkaAdminClient]:
    """A connected admin client; what it asks is answered in time, or raises as `failed` says."""
    admin = AIOKafkaAdminClient(**security(settings), request_timeout_ms=int(within_s * 1000))
    await connected(admin.start, admin.close, settings)
    try:
        async with asyncio.timeout(within_s):
            yield admin
    except (KafkaError, TimeoutError) as error:
        raise failed(settings, error) from error
    finally:
        await admin.close()


def failed(settings: KafkaSettings, error: BaseException) -> SluiceError:
    """A broker's error in our words: Misconfigured where it turns us away, else unreachable."""
    at = settings.bootstrap_servers
    if isinstance(error, ssl.SSLCertVerificationError):
        return Misconfigured(
            f"the certificate of Kafka at {at} is not trusted ({error.verify_message.rstrip('.')})",
            remedy="Correct kafka.ca_file, or the host in kafka.bootstrap_servers",
        )
    if isinstance(error, _UNAUTHENTICATED):
        return Misconfigured(
            f"Kafka at {at} refuses the credentials ({type(error).__name__})",
            remedy="Correct kafka.username and kafka.password, or kafka.sasl_mechanism and"
            " kafka.security_protocol",
        )
    if isinstance(error, _FORBIDDEN):
        return Misconfigured(
            f"Kafka at {at} refuses this user ({type(error).__name__})",
            remedy="Grant it the topics and groups of the settings",
        )
    return unreachable(settings, error)


def unreachable(settings: KafkaSettings, error: BaseException) -> DependencyUnavailable:
    """The error for a broker that does not answer, by its address."""
    secured = settings.security_protocol != "PLAINTEXT"
    more = ", or kafka.security_protocol, certificates and credentials" if secured else ""
    return DependencyUnavailable(
        f"Kafka at {settings.bootstrap_servers} does not answer ({type(error).__name__})",
        remedy=f"Start it or correct kafka.bootstrap_servers{more};"
        " `sluice doctor` tells what is up",
    )


async def _reason(settings: KafkaSettings) -> Exception | None:
    """Why no connection came about, as a broker tells whoever connects once more.

    aiokafka logs the reason and raises that there is no connection.
    """
    if settings.security_protocol == "PLAINTEXT":
        return None
    arguments = security(settings)
    for host, port, _ in collect_hosts(arguments.pop("bootstrap_servers")):
        try:
            async with asyncio.timeout(_ASKED_AGAIN_WITHIN_S):
                connection = await create_conn(host, port, **arguments)
        except (ssl.SSLCertVerificationError, *_UNAUTHENTICATED) as error:
            return error
        except (KafkaError, TimeoutError, OSError):
            continue
        connection.close()
    return None
