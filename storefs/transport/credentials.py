"""Ways into a bucket or web server, in the order in which they are tried.

Public data opens anonymously, without looking for credentials. Only a refusal makes storefs look for the
environment's: boto3 finds those of S3 (variables, profiles, roles, endpoints), google-auth those of GCS.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from obstore.store import GCSStore, HTTPStore, S3Store

from storefs.errors import Refused

if TYPE_CHECKING:
    from storefs.transport.location import Location
    from storefs.transport.options import TransportOptions

    Store = GCSStore | HTTPStore | S3Store

DEFAULT_REGION = "us-east-1"
GCS_URL = "https://storage.googleapis.com"
_GOOGLE_VENDOR_FILE = Path("/sys/class/dmi/id/product_name")


@dataclass(frozen=True, slots=True)
class Access:
    """One way in: an obstore store, and for plain HTTP clients the URL and headers of a path."""

    label: str
    store: Store
    address: Callable[[str, str], tuple[str, dict[str, str]]]


def accesses(location: Location, options: TransportOptions) -> Iterator[Access | str]:
    """The ways into `location`, best first; text instead of a way says why there is none."""
    if location.scheme in ("http", "https"):
        yield _web(location, options)
        return
    anonymous, found = (_s3_anonymous, _s3_found) if location.scheme == "s3" else (_gcs_anonymous, _gcs_found)
    if options.anonymous is not False:
        yield anonymous(location, options)
    if options.anonymous is not True:
        yield found(location, options)


def expanded(headers: Mapping[str, str]) -> dict[str, str]:
    """`headers` with `$NAME` replaced by the environment's values."""
    return {name: os.path.expandvars(value) for name, value in headers.items()}


def client_options(options: TransportOptions) -> dict[str, Any]:
    """How obstore's HTTP client behaves."""
    return {
        "allow_http": True,
        "timeout": None,
        "connect_timeout": f"{options.timeout}s",
        "read_timeout": f"{options.timeout}s",
        # stored gzip must come as it is: an answer unpacked on the way has no length
        "default_headers": {"Accept-Encoding": "gzip", **expanded(options.headers)},
    }


def _store(kind: Any, *args: Any, options: TransportOptions, **config: Any) -> Any:  # noqa: ANN401  # three kinds of store
    # the one retry policy is ours: it hears Retry-After
    retry = {"max_retries": 0}
    return kind(*args, client_options=client_options(options), retry_config=retry, **config)


def _escaped(path: str) -> str:
    return quote(path, safe="/:@!$&'()*+,;=~")


def _web(location: Location, options: TransportOptions) -> Access:
    base = f"{location.scheme}://{location.root}"
    query = f"?{os.path.expandvars(options.query)}" if options.query else ""
    return Access(
        "no credentials" if "Authorization" not in options.headers else "the Authorization header given",
        _store(HTTPStore, base, options=options),
        lambda _method, path: (f"{base}/{_escaped(path)}{query}", {}),
    )


# S3


def _s3_endpoint(options: TransportOptions) -> str | None:
    return options.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def _s3_store(location: Location, options: TransportOptions, region: str, endpoint: str | None, **more: Any) -> Any:  # noqa: ANN401  # obstore's keywords
    config = {"endpoint": endpoint} if endpoint else {"virtual_hosted_style_request": "." not in location.root}
    return _store(S3Store, location.root, options=options, region=region, **config, **more)


def _s3_anonymous(location: Location, options: TransportOptions) -> Access:
    endpoint = _s3_endpoint(options)
    region = options.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or DEFAULT_REGION
    base = (endpoint or f"https://s3.{region}.amazonaws.com").rstrip("/") + f"/{location.root}/"
    return Access(
        "anonymous",
        _s3_store(location, options, region, endpoint, skip_signature=True),
        lambda _method, path: (base + _escaped(path), {}),
    )


def _s3_found(location: Location, options: TransportOptions) -> Access | str:
    try:
        import boto3  # noqa: PLC0415  # an optional extra
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415  # an optional extra
        from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415  # needs the extra
    except ImportError:
        return "credentials not looked for, as boto3 is not installed (pip install 'storefs[s3]')"
    try:
        session = boto3.Session(profile_name=options.profile, region_name=options.region)
        if session.get_credentials() is None:
            return "boto3 finds no AWS credentials"
        region = session.region_name or DEFAULT_REGION
        client = session.client("s3", endpoint_url=_s3_endpoint(options), region_name=region)
    except BotoCoreError as error:
        return f"boto3 cannot supply AWS credentials: {error}"
    endpoint = client.meta.endpoint_url
    custom = None if endpoint.endswith(".amazonaws.com") else endpoint

    def address(method: str, path: str) -> tuple[str, dict[str, str]]:
        action = "head_object" if method == "HEAD" else "get_object"
        return client.generate_presigned_url(action, Params={"Bucket": location.root, "Key": path}), {}

    provider = Boto3CredentialProvider(session)
    store = _s3_store(location, options, region, custom, credential_provider=provider)
    return Access(
        f"AWS credentials from boto3{f' (profile {options.profile})' if options.profile else ''}", store, address
    )


# GCS


def _gcs_endpoint(options: TransportOptions) -> str | None:
    endpoint = options.endpoint_url or os.environ.get("STORAGE_EMULATOR_HOST")
    if endpoint and "://" not in endpoint:
        endpoint = f"http://{endpoint}"
    return endpoint.rstrip("/") if endpoint else None


def _gcs_store(location: Location, options: TransportOptions, **more: Any) -> Any:  # noqa: ANN401  # obstore's keywords
    endpoint = _gcs_endpoint(options)
    return _store(GCSStore, location.root, options=options, **({"base_url": endpoint} if endpoint else {}), **more)


def _gcs_anonymous(location: Location, options: TransportOptions) -> Access:
    base = f"{_gcs_endpoint(options) or GCS_URL}/{location.root}/"
    return Access(
        "anonymous",
        _gcs_store(location, options, skip_signature=True),
        lambda _method, path: (base + _escaped(path), {}),
    )


def _gcs_found(location: Location, options: TransportOptions) -> Access | str:
    if not _gcs_has_credentials():
        return "no Google credentials found (GOOGLE_APPLICATION_CREDENTIALS, or gcloud auth application-default login)"
    try:
        import google.auth  # noqa: PLC0415  # an optional extra
        from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415  # an optional extra
        from google.auth.transport.requests import Request  # noqa: PLC0415  # an optional extra
        from obstore.auth.google import GoogleCredentialProvider  # noqa: PLC0415  # needs the extra
    except ImportError:
        return "credentials not used, as google-cloud-storage is not installed (pip install 'storefs[gcs]')"
    try:
        credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/devstorage.read_only"])
    except GoogleAuthError as error:
        return f"google-auth cannot supply credentials: {error}"
    base = f"{_gcs_endpoint(options) or GCS_URL}/{location.root}/"
    request = Request()

    def address(_method: str, path: str) -> tuple[str, dict[str, str]]:
        try:
            if not credentials.valid:
                credentials.refresh(request)
        except GoogleAuthError as error:
            raise Refused(f"the Google credentials cannot be refreshed: {error}", url=location.url) from error
        return base + _escaped(path), {"Authorization": f"Bearer {credentials.token}"}

    store = _gcs_store(location, options, credential_provider=GoogleCredentialProvider(credentials))
    return Access("Google application default credentials", store, address)


def _gcs_has_credentials() -> bool:
    """Whether google-auth can find credentials without asking a metadata server that may not exist."""
    config = os.environ.get("CLOUDSDK_CONFIG") or Path.home() / ".config" / "gcloud"
    if (
        os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
        or (Path(config) / "application_default_credentials.json").exists()
    ):
        return True
    try:
        return "Google" in _GOOGLE_VENDOR_FILE.read_text()
    except OSError:
        return False
