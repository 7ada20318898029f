"""An export from Roboflow: resolved, downloaded, verified and unpacked, whole or not at all."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from persondet.data.fetch.archive import Progress
from persondet.data.fetch.archive_members import ArchiveLimits
from persondet.data.fetch.export_files import IncompleteExportError
from persondet.data.fetch.export_link import FORMATS, VersionName, api_key, resolve_link
from persondet.data.fetch.importing import import_archive
from persondet.data.fetch.partial_download import PartialDownload
from persondet.data.fetch.transfer import LinkRefusedError, Patience, fetch
from persondet.errors import DatasetError
from persondet.files import refuse_existing

logger = logging.getLogger(__name__)


def download_export(
    workspace: str,
    project: str,
    version: int,
    output: str | Path,
    *,
    dataset_format: str = FORMATS[0],
    overwrite: bool = False,
    timeout: float = 900.0,
    limits: ArchiveLimits | None = None,
    patience: Patience | None = None,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Download a version of a Roboflow project to `output`, laid out as by `import_export`.

    The API key is read from the environment variable ROBOFLOW_API_KEY. Neither it nor the signed
    link is written or said anywhere. What is downloaded lies in `.<name>.download` beside
    `output` until it is whole; the next call goes on with it.

    Args:
        workspace, project, version: as in the address app.roboflow.com/WORKSPACE/PROJECT/VERSION.
        output: the folder to make.
        dataset_format: `coco-segmentation` or `coco`.
        overwrite: replace `output` if it is there.
        timeout: seconds for Roboflow to name the link, with waiting for an export in the making.
        limits: what the archive may hold; default `ArchiveLimits()`.
        patience: time-outs and tries; default `Patience()`.
        progress: called with bytes done and bytes in all, first of the download, then, from 0
            again, of the unpacking.

    Returns:
        dict from each split that is there to the number of images its json lists.

    Raises:
        DatasetError: one sentence for whatever Roboflow, the network or the export is at fault.
        InstallationError: when the `roboflow` package is not installed.
        OutputExistsError: when `output` is there already or cannot be written.
    """
    output, limits, patience = Path(output), limits or ArchiveLimits(), patience or Patience()
    name = VersionName(workspace, project, version, dataset_format)
    refuse_existing(output, overwrite=overwrite)
    key = api_key()
    identity = [os.environ.get("API_URL", ""), workspace, project, version, dataset_format]

    def link() -> str:
        found = resolve_link(
            name,
            key=key,
            timeout=timeout,
            silence=patience.silence,
            poll=patience.poll,
            on_wait=lambda what, share: logger.info(
                "Roboflow is %s %s: %.0f %%", what, name, 100 * share
            ),
        )
        return found.link

    def transfer() -> None:
        fetch(
            link(),
            partial,
            label=f"the export of {name}",
            patience=patience,
            most_bytes=limits.total_bytes,
            progress=progress,
        )

    with PartialDownload(output, json.dumps(identity)) as partial:
        try:
            transfer()
            refused = False
        except LinkRefusedError:
            refused = True
        if refused:  # a signed link lives for minutes: one more is asked for
            transfer()
        mend = (
            f"the zip is kept as {partial.archive}: unpack it by hand and run "
            "`python tools/prepare_dataset.py clean` on the folder, or generate a new version"
        )
        try:
            return import_archive(
                partial.archive,
                output,
                label=f"the export of {name}",
                mend=mend,
                overwrite=overwrite,
                limits=limits,
                progress=progress,
                finish=partial.remove,
            )
        except IncompleteExportError:
            raise
        except DatasetError:
            partial.remove()  # to go on with these bytes would end the same way
            raise
