"""A folder of clips and images annotated, and its ledger: what became of each item.

The output has the input's sub-folders. Beside the results lie

- `ledger.jsonl`: a line per item, sorted by name, with the fields of `Outcome`; while a job runs,
  `ledger.partial.jsonl` grows by a line at the end of each item;
- `summary.csv`: the same for people;
- `contact_sheet.html`, if asked for: a frame of each clip.

One job at a time may write into an output.
"""

from __future__ import annotations

import csv
import html
import io
import json
import os
import platform
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

from persondet.batch.items import ItemTable
from persondet.batch.pools import Pool
from persondet.batch.store import Store
from persondet.batch.worker import STILLS, Outcome
from persondet.errors import MediaError, OutputExistsError
from persondet.files import locked, make_folder
from persondet.text import printable

LEDGER, PARTIAL_LEDGER = "ledger.jsonl", "ledger.partial.jsonl"
SUMMARY, CONTACT_SHEET, LEASE = "summary.csv", "contact_sheet.html", ".job.json"
_COLUMNS = (
    *("source", "state", "frames", "people", "people_max", "unique", "seconds", "node"),
    *("tries", "target", "reason"),
)
# A job behind an address says every third of this that it is still there.
_LEASE_SECONDS = 60.0

Tell = Callable[[int, int, int], None]
"""`tell(items done, items, frames done)`."""


@dataclass(frozen=True)
class JobSummary:
    """What became of a job: numbers of items by state, of those that an earlier call had finished,
    of files that are neither clip nor image, and of frames; and the wall time in seconds.
    """

    states: Counter[str]
    finished_before: int
    other_files: int
    frames: int
    people: int
    seconds: float

    @property
    def items(self) -> int:
        """How many items there are."""
        return self.states.total()


def annotate_folder(
    source: Store,
    output: Store,
    pool: Pool,
    *,
    contact_sheet: bool = False,
    span: Fraction | None = None,
    progress: Tell | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> JobSummary:
    """Let a pool annotate every clip and image of `source` that is not finished.

    A call that is killed or interrupted leaves whole results and its ledger; the same call goes on.

    Args:
        pool: its worker has the same source and output.
        contact_sheet: write the page; the pool's worker makes its `stills`.
        span: seconds; longer clips are cut into parts of that length, each with a result of its
            own. Tracks do not go from part to part: the pool's worker should not track.
        progress: called about once a second, and after each item.
        on_outcome: called after each item.

    Raises: MediaError: when the input holds nothing. OutputExistsError: when another job writes
        into the output, or it cannot be written.
    """
    started = time.monotonic()
    with only_job(output), ItemTable() as table, _ledger_file(output, table) as ledger:
        output.clear_stages()
        table.list_files(source, besides=_inside(output, source), span=span)
        total, frames, before, people = len(table), 0, 0, 0
        states: Counter[str] = Counter()

        def tell(running: int) -> None:
            if progress is not None:
                progress(states.total(), total, frames + running)

        for outcome in pool.run(iter(table), tell):
            if outcome.finished_before and not outcome.frames:
                outcome = _as_before(outcome, table.past(outcome.source))
            table.settle(outcome.source, outcome.line())
            ledger.write(outcome.line())
            ledger.flush()
            states[outcome.state] += 1
            before += outcome.finished_before
            frames, people = frames + outcome.frames, people + outcome.people
            if on_outcome is not None:
                on_outcome(outcome)
            tell(0)
        _publish(output, table, contact_sheet)
    seconds = time.monotonic() - started
    return JobSummary(states, before, table.others, frames, people, seconds)


def _as_before(outcome: Outcome, past: dict[str, Any]) -> Outcome:
    """Return an outcome with what an earlier ledger has about the item."""
    names = ("frames", "people", "people_max", "unique", "seconds", "node", "tries")
    return replace(outcome, **{name: past[name] for name in names if name in past})


def _inside(output: Store, source: Store) -> str:
    """Return the output's name below the source, "" if it lies elsewhere."""
    if output.remote != source.remote:
        return ""
    if output.remote:
        inner, outer = output.root.rstrip("/"), f"{source.root.rstrip('/')}/"
        return inner.removeprefix(outer) if inner.startswith(outer) else ""
    here, there = Path(output.root).resolve(), Path(source.root).resolve()
    return here.relative_to(there).as_posix() if there in here.parents else ""


@contextmanager
def only_job(output: Store) -> Iterator[None]:
    """Hold an output for one job.

    In a folder by a lock that ends with the process. Behind an address, by a small file that says
    every twenty seconds that the job is still there; one that was killed holds it for a minute.

    Raises: OutputExistsError: when another job holds it.
    """
    if output.remote:
        with _leased(output):
            yield
        return
    make_folder(output.root)
    try:
        lock = locked(Path(output.root))
    except BlockingIOError as error:
        raise OutputExistsError(
            f"{output.label}: another job writes into this folder; wait for it, or choose another "
            "--output."
        ) from error
    try:
        yield
    finally:
        output.clear_stages()
        if lock is not None:
            os.close(lock)


@contextmanager
def _leased(output: Store) -> Iterator[None]:
    me = {"host": platform.node(), "pid": os.getpid(), "job": uuid.uuid4().hex}
    held = output.read(LEASE)
    with suppress(ValueError, KeyError, TypeError):
        other = json.loads(held or b"")
        if time.time() - float(other["time"]) < _LEASE_SECONDS:
            host = printable(other["host"], 100)
            raise OutputExistsError(
                f"{output.label}: another job writes there, on host {host}; "
                f"wait for it, or for {_LEASE_SECONDS:.0f} seconds if it was killed."
            )
    ended = threading.Event()

    def renew() -> None:
        output.write(LEASE, json.dumps(me | {"time": time.time()}).encode())

    def keep_renewing() -> None:
        while not ended.wait(_LEASE_SECONDS / 3):
            with suppress(OSError, MediaError):
                renew()

    renew()

    thread = threading.Thread(target=keep_renewing, name="persondet-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        output.remove(LEASE)


@contextmanager
def _ledger_file(output: Store, table: ItemTable) -> Iterator[IO[str]]:
    """Yield the growing ledger, after `table` has taken over the earlier ones.

    Behind an address nothing grows: the ledger lies here meanwhile, and is lost with a killed job;
    the results are not.
    """
    names = (LEDGER, PARTIAL_LEDGER)
    for name in names:
        if output.exists(name):
            with output.fetched(name) as path, open(path, encoding="utf-8") as file:
                table.remember(line for line in file if line.endswith("}\n"))
    with output.stage() as folder:
        path = folder / PARTIAL_LEDGER if output.remote else Path(output.root) / PARTIAL_LEDGER
        # Appended to: until the end, the lines of a killed call are only there.
        with open(path, "a", encoding="utf-8") as file:
            yield file


def _publish(output: Store, table: ItemTable, contact_sheet: bool) -> None:
    """Write ledger, summary and page."""
    with output.stage() as folder:
        with (
            open(folder / LEDGER, "w", encoding="utf-8") as ledger,
            open(folder / SUMMARY, "w", encoding="utf-8", newline="") as summary,
        ):
            rows = csv.DictWriter(summary, _COLUMNS, extrasaction="ignore")
            rows.writeheader()
            for line in table.settled():
                ledger.write(line)
                row = json.loads(line)
                rows.writerow({k: _cell(v) for k, v in row.items()})
        if contact_sheet:
            with open(folder / CONTACT_SHEET, "w", encoding="utf-8") as page:
                _write_page(page, table)
            output.publish(folder / CONTACT_SHEET, CONTACT_SHEET)
        output.publish(folder / SUMMARY, SUMMARY)
        output.publish(folder / LEDGER, LEDGER)
    output.remove(PARTIAL_LEDGER)


def _cell(value: Any) -> Any:
    """Return a value that a spreadsheet takes for text and not for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Annotated clips</title>
<style>
body { font: 14px system-ui, sans-serif; margin: 1.5rem; color: #222; background: #fff }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem }
figure { margin: 0 } img { width: 100%; background: #eee } figcaption { overflow-wrap: anywhere }
.failed, .refused { color: #a40000 } .partial { color: #8a5a00 } small { color: #555 }
</style>
<h1>Annotated clips</h1>
<main>
"""


def _write_page(page: IO[str], table: ItemTable) -> None:
    from urllib.parse import quote

    page.write(_PAGE)
    for line in table.settled():
        row = json.loads(line)
        if not row["target"].endswith(".mp4"):
            continue
        figure = io.StringIO()
        name = html.escape(printable(row["source"], 300))
        state = f'<span class="{row["state"]}">{row["state"]}</span>'
        if row["state"] in ("done", "partial"):
            still, clip = quote(f"{STILLS}/{row['target']}.jpg"), quote(row["target"])
            figure.write(f'<a href="{clip}"><img loading="lazy" src="{still}" alt=""></a>')
            people = f"{row['frames']} frames, {row['people_max']} people at most"
            figure.write(f"<figcaption>{name}<br><small>{people}, {state}</small>")
        else:
            reason = html.escape(printable(row["reason"], 300))
            figure.write(f"<figcaption>{name}<br>{state}<br><small>{reason}</small>")
        page.write(f"<figure>{figure.getvalue()}</figcaption></figure>\n")
    page.write("</main>\n")
