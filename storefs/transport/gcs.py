"""Ways into a GCS bucket: anonymous, or with what google-auth finds; never by asking a metadata server in vain."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storefs.transport.credentials import Access, escaped, make_store
from storefs.transport.faults import Denied

if TYPE_CHECKING:
    from storefs.transport.location import Location
    from storefs.transport.options import TransportOptions

GOOGLE_URL = "https://storage.googleapis.com"
_SCOPES = ["https://www.googleapis.com/auth/devstorage.read_only"]
_VENDOR_FILE = Path("/sys/class/dmi/id/product_name")


def anonymous(location: Location, options: TransportOptions) -> Access:
    """The way in without credentials."""
    base = _base(location, options)
    return Access(
        "anonymous",
        lambda: _store(location, options, skip_signature=True),
        lambda _method, path: (base + escaped(path), {}),
    )


def found(location: Location, options: TransportOptions) -> Access | str:
    """The way in with credentials given or found by google-auth, or why there is none."""
    given = options.secrets.get("token")
    if not given and not _has_credentials():
        return "no Google credentials found (GOOGLE_APPLICATION_CREDENTIALS, or gcloud auth application-default login)"
    try:
        import google.auth  # noqa: PLC0415  # an optional extra
        from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415  # an optional extra
        from google.auth.transport.requests import Request  # noqa: PLC0415  # an optional extra
    except ImportError:
        return "credentials not used, as google-cloud-storage is not installed (pip install 'storefs[gcs]')"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # end users' credentials serve for reading
            if isinstance(given, str):
                credentials, _ = google.auth.load_credentials_from_file(given, scopes=_SCOPES)  # type: ignore[no-untyped-call]  # google's
            elif given:
                credentials, _ = google.auth.load_credentials_from_dict(given, scopes=_SCOPES)  # type: ignore[no-untyped-call]  # google's
            else:
                credentials, _ = google.auth.default(scopes=_SCOPES)
    except (GoogleAuthError, ValueError, OSError) as error:
        return f"google-auth cannot supply credentials: {error}"
    base = _base(location, options)
    request = Request()

    def sign(_method: str, path: str) -> tuple[str, dict[str, str]]:
        try:
            if not credentials.valid:
                credentials.refresh(request)
        except GoogleAuthError as error:
            raise Denied(401, location.url, f"they cannot be refreshed: {error}") from None
        return base + escaped(path), {"Authorization": f"Bearer {credentials.token}"}

    def store() -> Any:  # noqa: ANN401  # obstore is loaded late
        from obstore.auth.google import GoogleCredentialProvider  # noqa: PLC0415  # needs the extra

        return _store(location, options, credential_provider=GoogleCredentialProvider(credentials, request=request))

    label = "the Google credentials given" if given else "Google application default credentials"
    return Access(label, store, sign, signs_slowly=True)


def _base(location: Location, options: TransportOptions) -> str:
    return f"{_endpoint(options) or GOOGLE_URL}/{location.root}/"


def _endpoint(options: TransportOptions) -> str | None:
    endpoint = options.endpoint_url or os.environ.get("STORAGE_EMULATOR_HOST")
    if endpoint and "://" not in endpoint:
        endpoint = f"http://{endpoint}"
    return endpoint.rstrip("/") if endpoint else None


def _store(location: Location, options: TransportOptions, **more: Any) -> Any:  # noqa: ANN401  # obstore's keywords
    from obstore.store import GCSStore  # noqa: PLC0415  # not in a forked process

    endpoint = _endpoint(options)
    return make_store(GCSStore, location.root, options=options, **({"base_url": endpoint} if endpoint else {}), **more)


def _has_credentials() -> bool:
    """Whether google-auth can find credentials without asking a metadata server that may not exist."""
    config = os.environ.get("CLOUDSDK_CONFIG") or Path.home() / ".config" / "gcloud"
    if (
        os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
        or (Path(config) / "application_default_credentials.json").exists()
    ):
        return True
    try:
        return "Google" in _VENDOR_FILE.read_text()
    except OSError:
        return False
