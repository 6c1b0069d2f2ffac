"""The folder of `fccl flower init`: a folder for each party of a deployment, with exactly what that party gets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fccl.paths.folders import KeyPaths

README = "README.txt"


@dataclass(frozen=True)
class TlsPaths:
    """A certificate, its private key, and the certificate of the authority that issued it."""

    root: Path
    name: str = "server"

    @property
    def ca(self) -> Path:
        return self.root / "ca.pem"

    @property
    def certificate(self) -> Path:
        return self.root / f"{self.name}.pem"

    @property
    def key(self) -> Path:
        return self.root / f"{self.name}.key"

    @property
    def proxy(self) -> Path:
        """The configuration of the proxy before the SuperLink."""
        return self.root / "nginx.conf"


@dataclass(frozen=True)
class ServerPaths:
    """`server/`: the server's signing key, everybody's public keys, and the public keys of the sites' SuperNodes."""

    root: Path

    @property
    def ca(self) -> Path:
        return self.root / "ca.pem"

    @property
    def keys(self) -> KeyPaths:
        return KeyPaths(self.root / "keys")

    @property
    def nodes(self) -> Path:
        return self.root / "nodes"

    def node(self, client_id: int) -> Path:
        """The public key of a site's SuperNode, in OpenSSH's form."""
        return self.nodes / f"client_{client_id}.pub"


@dataclass(frozen=True)
class SitePaths:
    """`site_i/`: the private keys of one site's SuperNode and worker."""

    root: Path

    @property
    def ca(self) -> Path:
        return self.root / "ca.pem"

    @property
    def node_key(self) -> Path:
        return self.root / "node.key"

    @property
    def keys(self) -> KeyPaths:
        return KeyPaths(self.root / "keys")


@dataclass(frozen=True)
class FlowerPaths:
    """All parties' folders. `server/` is made last: where it is, the others are."""

    root: Path

    @property
    def authority(self) -> TlsPaths:
        return TlsPaths(self.root / "authority", "ca")

    @property
    def described(self) -> Path:
        """The hosts and ports of the deployment."""
        return self.root / "authority" / "deployment.json"

    @property
    def superlink(self) -> TlsPaths:
        return TlsPaths(self.root / "superlink")

    @property
    def server(self) -> ServerPaths:
        return ServerPaths(self.root / "server")

    def site(self, client_id: int) -> SitePaths:
        return SitePaths(self.root / f"site_{client_id}")
