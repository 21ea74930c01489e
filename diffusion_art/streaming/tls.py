"""Encryption by certificate files: contexts for the two ends of a `wss://` address."""

import ssl
from dataclasses import dataclass

from diffusion_art.errors import UserError


@dataclass(frozen=True)
class Tls:
    """A server's certificate (PEM, with the chain up to its authority) and private key, as file paths."""

    certificate: str
    key: str

    @classmethod
    def of(cls, certificate: str | None, key: str | None) -> "Tls | None":
        """Of both files, or None for neither. UserError for one without the other."""
        if certificate is not None and key is not None:
            return cls(certificate, key)
        if certificate is None and key is None:
            return None
        missing = "tls.key" if key is None else "tls.certificate"
        raise UserError(f"{missing} is missing; a server with TLS needs tls.certificate=FILE and tls.key=FILE")

    def context(self) -> ssl.SSLContext:
        """TLS 1.2 or newer with this certificate. UserError when the files are missing or do not belong together."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            # An empty password, or a protected key would ask for one at the terminal.
            context.load_cert_chain(self.certificate, self.key, password="")
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise UserError(
                f"the certificate {self.certificate} and its key {self.key} cannot be used ({_reason(error)}); give "
                f"two PEM files that belong together, the key without a password: tls.certificate=FILE tls.key=FILE"
            ) from None
        return context


def client_context(ca: str | None) -> ssl.SSLContext:
    """Trusts the system's authorities, or only those in the PEM file `ca`. UserError when it cannot be read."""
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ValueError) as error:
        raise UserError(
            f"data.ca={ca} is no PEM file of certificates ({_reason(error)}); give the server's certificate, or that "
            f"of the authority that signed it"
        ) from None


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)
