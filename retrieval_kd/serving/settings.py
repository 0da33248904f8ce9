"""What a server is started with, and the bounds of a request."""

from __future__ import annotations

import importlib.util
import ipaddress

from pydantic import Field, field_validator

from retrieval_kd.errors import InputError
from retrieval_kd.schema import Part

LONGEST_QUERY = 2_000  # characters
LONGEST_PREFIX = 200  # characters
MOST_HITS = 100  # documents of a list
LARGEST_REQUEST = 32_768  # bytes of a body; a query of the longest, all escaped, fits


class ServeSettings(Part):
    """Where a server listens, and how much it takes on."""

    host: str = Field(
        default="127.0.0.1",
        description="address to listen on; with 0.0.0.0 or :: other machines can connect",
    )
    port: int = Field(default=8000, ge=0, le=65_535, description="port; 0: any that is free")
    concurrency: int = Field(
        default=64,
        ge=1,
        le=1_024,
        description="searches at work or waiting at one time; what is more gets a 503",
    )
    rerank: int = Field(
        default=10,
        ge=1,
        le=MOST_HITS,
        description="documents of each list that --teacher re-ranks, when it is asked to",
    )

    @field_validator("host")
    @classmethod
    def _address(cls, host: str) -> str:
        if host == "localhost":
            return "127.0.0.1"
        try:
            return str(ipaddress.ip_address(host))
        except ValueError as error:
            raise ValueError("write an address, such as 127.0.0.1, ::1 or 0.0.0.0") from error

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return ipaddress.ip_address(self.host).is_loopback


def need_web() -> None:
    """Raise `InputError` early if the packages that serve are not installed."""
    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"serving needs the package {' and '.join(missing)}",
            remedy="pip install 'retrieval_kd[serve]'",
        )
