"""Whom we trust when we open a connection with TLS, and the certificate that we show where the other side asks for one."""

import ssl


def verifying(ca_file: str = "", cert_file: str = "", key_file: str = "") -> ssl.SSLContext:
    """Verifies names and chains with the system's store or SSL_CERT_FILE, and with ca_file beside them. Empty names: none.

    Takes many milliseconds, for the system's store is read. Raises OSError naming the file where one cannot be used.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:  # ssl.SSLError is one, and tells no name
            raise OSError(f"{ca_file}: {error}") from None
    if cert_file:
        try:
            context.load_cert_chain(cert_file, key_file or None, password="")  # or it would ask on the terminal
        except OSError as error:
            raise OSError(f"{cert_file}, {key_file}: {error}") from None
    return context
