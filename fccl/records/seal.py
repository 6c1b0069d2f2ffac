"""`seal.json`: the hashes of all that a finished run has written, for whoever checks its result later."""

from __future__ import annotations

import json

from pydantic import Field

from fccl.specs.values import Value


class SealedFile(Value):
    """A file as it was: so many first bytes, and their SHA-256. Logs may have grown since; other files may not."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    length: int = Field(ge=0)  # bytes


class Seal(Value):
    """The files of a finished run by their names below its folder. The server signs it where it has a key."""

    run_id: str
    files: dict[str, SealedFile]
    signature: str = Field(default="", max_length=200)

    def signed_content(self) -> bytes:
        """All that it says but the signature, in one spelling (JSON, keys sorted, no spaces)."""
        said = self.model_dump(mode="json", exclude={"signature"})
        return f"fccl Seal\n{json.dumps(said, sort_keys=True, separators=(',', ':'))}".encode()

    def written(self) -> bytes:
        """The content of the file: it has no other."""
        return self.model_dump_json(indent=1).encode() + b"\n"
