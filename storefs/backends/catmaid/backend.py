"""What a CATMAID address names, described: the projects of a server, the stacks of a project or group, or a stack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storefs.backends.catmaid.projects import (
    Stacks,
    describe_group,
    describe_one,
    describe_project,
    describe_server,
)
from storefs.backends.catmaid.reading import Reading
from storefs.backends.catmaid.stack import StackBackend
from storefs.backends.catmaid.url import Address

if TYPE_CHECKING:
    from storefs.plans import Plan


def describe(address: Address, reading: Reading) -> Plan[StackBackend | Stacks]:
    """What `address` names. Raises NoSuchVolume, Refused, MetadataError, Unsupported, UrlError, TransportError."""
    if reading.stack_info is not None or address.stack is not None:
        return (yield from describe_one(address, reading))
    if address.group is not None:
        return (yield from describe_group(address, reading))
    if address.project is not None:
        return (yield from describe_project(address, reading))
    return (yield from describe_server(address, reading))
