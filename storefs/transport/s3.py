"""Ways into an S3 bucket: anonymous, with keys given, with what boto3 finds (variables, profiles, roles, endpoints)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from storefs.transport.credentials import Access, escaped, make_store

if TYPE_CHECKING:
    from storefs.transport.location import Location
    from storefs.transport.options import TransportOptions

DEFAULT_REGION = "us-east-1"
_AMAZON = ".amazonaws.com"


def anonymous(location: Location, options: TransportOptions) -> Access:
    """The way in without credentials."""
    endpoint = _endpoint(options)
    region = options.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or DEFAULT_REGION
    bucket = _bucket_url(location, region, endpoint)
    return Access(
        "anonymous",
        lambda: _store(location, options, region, endpoint, skip_signature=True),
        lambda _method, path: (f"{bucket}/{escaped(path)}", {}),
        bucket_url=bucket,
    )


def found(location: Location, options: TransportOptions) -> Access | str:
    """The way in with keys given or found by boto3, or why there is none."""
    try:
        import boto3  # noqa: PLC0415  # an optional extra
        from botocore.config import Config  # noqa: PLC0415  # an optional extra
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415  # an optional extra
    except ImportError:
        return "credentials not looked for, as boto3 is not installed (pip install 'storefs[s3]')"
    try:
        session = boto3.Session(
            profile_name=options.profile,
            region_name=options.region,
            aws_access_key_id=options.secrets.get("key"),
            aws_secret_access_key=options.secrets.get("secret"),
            aws_session_token=options.secrets.get("token"),
        )
        if session.get_credentials() is None:
            return "boto3 finds no AWS credentials"
        region = session.region_name or DEFAULT_REGION
        config = Config(signature_version="s3v4", s3={"addressing_style": "path" if _endpoint(options) else "auto"})
        client = session.client("s3", endpoint_url=_endpoint(options), region_name=region, config=config)
    except (BotoCoreError, ValueError) as error:
        return f"boto3 cannot supply AWS credentials: {error}"
    endpoint = client.meta.endpoint_url
    custom = None if endpoint.endswith(_AMAZON) else endpoint

    def sign(method: str, path: str) -> tuple[str, dict[str, str]]:
        action = "head_object" if method == "HEAD" else "get_object"
        return client.generate_presigned_url(action, Params={"Bucket": location.root, "Key": path}), {}

    def store() -> Any:  # noqa: ANN401  # obstore is loaded late
        from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415  # needs the extra

        return _store(location, options, region, custom, credential_provider=Boto3CredentialProvider(session))

    return Access(_label(options), store, sign, signs_slowly=True, bucket_url=_bucket_url(location, region, custom))


def _label(options: TransportOptions) -> str:
    if options.secrets:
        return "the AWS keys given"
    return f"AWS credentials from boto3{f' (profile {options.profile})' if options.profile else ''}"


def _endpoint(options: TransportOptions) -> str | None:
    return options.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def _bucket_url(location: Location, region: str, endpoint: str | None) -> str:
    base = endpoint or f"https://s3.{region}{_AMAZON}"
    return f"{base.rstrip('/')}/{location.root}"


def _store(location: Location, options: TransportOptions, region: str, endpoint: str | None, **more: Any) -> Any:  # noqa: ANN401  # obstore's keywords
    from obstore.store import S3Store  # noqa: PLC0415  # not in a forked process

    config = {"endpoint": endpoint} if endpoint else {"virtual_hosted_style_request": "." not in location.root}
    return make_store(S3Store, location.root, options=options, region=region, **config, **more)
