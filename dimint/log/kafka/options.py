"""What can be set about the way to Kafka. [S]"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from dimint.errors import SettingsError
from dimint.limits import RECORD_MAX_BYTES

__all__ = ["KafkaOptions", "security_of"]

_SECURITY: Final = frozenset(
    """
    security_protocol ssl_cafile ssl_certfile ssl_keyfile ssl_password ssl_check_hostname ssl_crlfile ssl_ciphers
    sasl_mechanism sasl_plain_username sasl_plain_password sasl_kerberos_name sasl_kerberos_service_name
    sasl_kerberos_domain_name
    """.split()
)
"""Options of kafka-python that are handed on as they are."""


_MECHANISMS: Final = {"plain": "PLAIN", "scram-sha-256": "SCRAM-SHA-256", "scram-sha-512": "SCRAM-SHA-512"}


def security_of(*, tls: bool, ca: object, certificate: object, key: object, auth: str) -> dict[str, Any]:
    """`KafkaOptions.security` for what an operator sets: paths of PEM files, and `mechanism:user:password`.

    Raises SettingsError.
    """
    security: dict[str, Any] = {}
    if tls:
        files = {"ssl_cafile": ca, "ssl_certfile": certificate, "ssl_keyfile": key}
        security |= {name: str(path) for name, path in files.items() if path is not None}
    elif ca is not None or certificate is not None or key is not None:
        raise SettingsError("certificates for Kafka do nothing without TLS", hint="set kafka_tls too")
    if auth:
        mechanism, _, rest = auth.partition(":")
        user, colon, password = rest.partition(":")
        if mechanism not in _MECHANISMS or not colon or not user:
            raise SettingsError("kafka_auth is not mechanism:user:password", hint="mechanisms: " + ", ".join(_MECHANISMS))
        security |= {
            "sasl_mechanism": _MECHANISMS[mechanism],
            "sasl_plain_username": user,
            "sasl_plain_password": password,
        }
    if security or tls:
        security["security_protocol"] = ("SASL_" if auth else "") + ("SSL" if tls else "PLAINTEXT")
    return security


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaOptions:
    """Times in seconds. Raises SettingsError for what cannot work."""

    prefix: str = ""
    """Put before every topic's name, so that several systems can share one Kafka."""
    delivery_timeout_s: float = 30.0
    """How long an append is tried. Above the brokers' session time-out and an election."""
    request_timeout_s: float = 8.0
    """How long one request waits for its broker before another connection is tried."""
    call_timeout_s: float = 10.0
    """How long `bounds`, `read`, `offset_at`, `trim` and `create` try before they raise LogUnavailable."""
    connect_timeout_s: float = 5.0
    """How long opening tries."""
    stuck_s: float = 5.0
    """A producer that says nothing about a record for this long after its delivery time-out is replaced."""
    close_timeout_s: float = 5.0
    """How long `close` waits for what was handed over; what is left then is unknown."""
    bytes_in_flight_max: int = 64 << 20
    """More is refused at once: the library's producer has no bound of its own."""
    replication: int | None = None
    """Copies of new topics; None makes it 3, or as many as there are brokers."""
    security: Mapping[str, Any] = field(default_factory=dict)
    """TLS and SASL, under kafka-python's names."""

    def __post_init__(self) -> None:
        unknown = sorted(self.security.keys() - _SECURITY)
        if unknown:
            raise SettingsError(f"unknown Kafka option {unknown[0]}", hint="known are: " + ", ".join(sorted(_SECURITY)))
        user = self.security.get("sasl_plain_username")
        if user is not None and str(self.security.get("sasl_mechanism", "")).startswith("SCRAM") and set(str(user)) & set(",="):
            raise SettingsError("a SCRAM user name must not contain ',' or '='", hint="the client library does not escape them")
        if self.delivery_timeout_s < self.request_timeout_s:
            raise SettingsError(
                f"delivery_timeout_s {self.delivery_timeout_s} is below request_timeout_s {self.request_timeout_s}"
            )
        if self.bytes_in_flight_max < RECORD_MAX_BYTES:
            raise SettingsError(f"bytes_in_flight_max must be at least {RECORD_MAX_BYTES}")
