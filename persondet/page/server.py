"""The page's server: one process, one folder, one address of this computer."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persondet.errors import ConfigError, InstallationError
from persondet.page.guard import SHARED, Guard
from persondet.report.build import HTML, build_report, check_run
from persondet.report.plots import FOLDER, PLOTS, plot_run
from persondet.results import RunError

if TYPE_CHECKING:
    from persondet.page.trials import Trial

ADDRESS = "127.0.0.1"
_SECONDS_TO_END = 3
# Gradio reads these when it is imported. Nothing is to be asked of, or told to, other computers.
_ENVIRONMENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_MCP_SERVER": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
}


def require_gradio() -> None:
    """Raise unless Gradio is installed.

    Raises: InstallationError: with what to run.
    """
    if find_spec("gradio") is None:
        raise InstallationError(
            "the page needs Gradio; run `pip install persondet[page]`, or in a checkout "
            "`.venv/bin/python -m pip install -c constraints.txt -e '.[page]'`."
        )


def listen(port: int) -> socket.socket:
    """Return a socket that listens at this computer's own address alone; port 0: any free one.

    Raises: ConfigError: when the port is taken, or may not be used.
    """
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((ADDRESS, port))
        server.listen()
    except OSError as error:
        server.close()
        raise ConfigError(
            f"--port {port} cannot be used ({error.strerror}); choose another one, or 0 for any."
        ) from error
    return server


def serve(
    trial: Trial,
    server: socket.socket,
    *,
    run: str | Path = "",
    clips: Mapping[str, Path],
    megabytes: int,
    announce: Callable[[str], None],
) -> None:
    """Serve the page until the process is interrupted or terminated.

    Files lie in a temporary folder, which goes at the end.

    Args:
        trial: the model.
        server: as `listen` returns it.
        run: the run folder whose report and curves the page shows; "" or a checkpoint: none.
        clips: to pick from, by name.
        megabytes: the largest upload.
        announce: gets the page's address.
    """
    with tempfile.TemporaryDirectory(prefix="persondet-page-", ignore_cleanup_errors=True) as name:
        root = Path(name).resolve()
        os.environ.update(_ENVIRONMENT, GRADIO_TEMP_DIR=str(root))
        import uvicorn

        from persondet.page.layout import Page

        port = server.getsockname()[1]
        curves, missing = _report(run, root / SHARED)
        page = Page(trial, root, clips=clips, curves=curves, missing=missing)
        application = Guard(_application(page, root, megabytes), root, port, megabytes * 10**6)
        config = uvicorn.Config(
            application,
            log_level="warning",
            ws="none",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_SECONDS_TO_END,
        )
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        announce(f"http://{ADDRESS}:{port}/")
        try:
            with suppress(KeyboardInterrupt):
                uvicorn.Server(config).run(sockets=[server])
        finally:
            page.stop_all()
            trial.finish(_SECONDS_TO_END)


def _application(page: Any, root: Path, megabytes: int) -> Any:
    """Return the page and its report as an ASGI application."""
    import gradio
    from fastapi import FastAPI
    from fastapi.responses import FileResponse

    logging.getLogger("httpx").setLevel(logging.WARNING)
    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @application.get(f"/{HTML}")
    def report() -> FileResponse:
        headers = {"content-security-policy": "sandbox allow-popups"}
        return FileResponse(root / SHARED / HTML, headers=headers)

    return gradio.mount_gradio_app(
        application,
        page.build(),
        path="/",
        server_name=ADDRESS,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=megabytes * 10**6,
        allowed_paths=[],
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        **page.look(),
    )


def _report(run: str | Path, folder: Path) -> tuple[list[Path], str]:
    """Lay a run's report and curves into `folder`; return the curves, or why there are none."""
    if not run or Path(run).is_file():
        return [], "Report and curves belong to a run; start the page with --run FOLDER."
    try:
        run = check_run(run)
        folder.mkdir()
        if (run / HTML).is_file():
            shutil.copyfile(run / HTML, folder / HTML)
        else:
            build_report(run, folder)
        drawn = [run / FOLDER / name for name in PLOTS if (run / FOLDER / name).is_file()]
        if drawn:
            return [Path(shutil.copy(path, folder)) for path in drawn], ""
        return plot_run(run, folder / FOLDER), ""
    except RunError as error:
        return [], str(error)
