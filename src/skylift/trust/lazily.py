"""Key services' libraries are loaded when a key of theirs is used, not whenever skylift starts.

securesystemslib imports boto3, pkcs11 and others where they are installed: half a second of every start. Here
it is imported as if they were not, once; `signer` has the module of one kind look again.
"""

import sys
from importlib import import_module, reload
from importlib.util import find_spec
from typing import Any

# The scheme of a key's URI -> securesystemslib's module and class, and the library that it needs.
KINDS = {
    "awskms": ("_aws_signer", "AWSSigner", "boto3"),
    "azurekms": ("_azure_signer", "AzureSigner", "azure"),
    "gcpkms": ("_gcp_signer", "GCPSigner", "google.cloud"),
    "hsm": ("_hsm_signer", "HSMSigner", "pkcs11"),
    "hv": ("_vault_signer", "VaultSigner", "hvac"),
}
_looked: set[str] = set()  # kinds whose module has looked for its library again


def _without(libraries: list[str]) -> None:
    """Import securesystemslib's signers as if these libraries were not installed."""
    hidden = dict.fromkeys(name for name in libraries if name not in sys.modules)
    sys.modules.update(hidden)  # type: ignore[arg-type] # None: an import of it fails
    try:
        import_module("securesystemslib.signer")
    finally:
        for name in hidden:
            del sys.modules[name]


def signer(scheme: str) -> Any:
    """The class that signs with keys of this scheme, with its library; None for a scheme that has none."""
    from securesystemslib.signer import SIGNER_FOR_URI_SCHEME

    if scheme in KINDS:
        module, name, _ = KINDS[scheme]
        if scheme not in _looked:
            again = reload(import_module(f"securesystemslib.signer.{module}"))
            SIGNER_FOR_URI_SCHEME[scheme] = getattr(again, name)
            _looked.add(scheme)
    return SIGNER_FOR_URI_SCHEME.get(scheme)


if "securesystemslib.signer" not in sys.modules and find_spec("securesystemslib"):
    _without([library for _, _, library in KINDS.values()])
