"""The ServerApp of a federation, whatever it does: a function of the grid and the run's configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

__all__ = ["Grid", "Serve", "server_app"]
Serve = Callable[[Grid, Mapping[str, object]], None]


def server_app(serve: Serve) -> ServerApp:
    """A ServerApp that does this."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        serve(grid, context.run_config)

    return app
