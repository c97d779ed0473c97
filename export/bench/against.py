"""CCNet beside another network on the same frames: time of a whole frame, load time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ccnet.contract import CCNetError
from ccnet.runtime import Reconstructor
from ccnet.runtime.io.frames import read_frame

from .frames import patches_png
from .networks import Size
from .peer import Array, Peer
from .timing import Timing, machine, take_turns

CCNET, PEER = "CCNet", "peer"

MHA = "mha"
"""Name of the network of Table II's ablation that takes the place of a file: it has MST++'s attention."""

SIZES: tuple[Size, ...] = ((128, 128), (256, 256), (482, 512), (1080, 1920))
"""Frames to compare on, height and width in px."""

QUICK_SIZES: tuple[Size, ...] = ((128, 128), (256, 256))

_PROCESS = """
import json, sys, time
from pathlib import Path
from ccnet.export.bench.peer import Peer
from ccnet.runtime import Reconstructor
from ccnet.runtime.io.frames import read_frame
which, network, frame, threads = sys.argv[1], Path(sys.argv[2]), read_frame(Path(sys.argv[3])), int(sys.argv[4])
started = time.perf_counter()
run = Peer(network, threads) if which == "peer" else Reconstructor.open(network, input_space="camera", threads=threads)
opened = time.perf_counter()
run(frame)
done = time.perf_counter()
peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(json.dumps([opened - started, done - started, 1024 * int(peak[0]) / 1e6 if peak else None]))
"""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of a network in a process of its own.

    Attributes:
        load: Seconds to open it.
        first_cube: Seconds from opening it to the cube of its first frame.
        peak_mb: Largest resident memory of the process, MB; None where the system does not say.
    """

    load: float
    first_cube: float
    peak_mb: float | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """CCNet and a peer on frames of one size, both from a PNG to a cube in memory.

    Attributes:
        size: Height and width, px.
        timings: CCNET and PEER → time of a frame.
        costs: CCNET and PEER → load time and memory.
    """

    size: Size
    timings: dict[str, Timing]
    costs: dict[str, Cost]

    @property
    def ratio(self) -> float:
        """Ratio of the peer's time to that of CCNet, by the medians."""
        return self.timings[PEER].median / self.timings[CCNET].median

    @property
    def least_ratio(self) -> float:
        """The same ratio of the shortest times, which other work on the machine disturbs least."""
        return self.timings[PEER].least / self.timings[CCNET].least


def sizes_for(peer: Peer, sizes: Sequence[Size]) -> list[Size]:
    """Return the sizes that the peer takes; the peer's own where it is fixed.

    Args:
        peer: The peer.
        sizes: Heights and widths to choose from, px.

    Returns:
        At least one size.

    Raises:
        CCNetError: One side of the peer is fixed, and no size fits.
    """
    height, width = peer.size
    if height and width:
        return [(height, width)]
    if fitting := [size for size in sizes if peer.takes(*size)]:
        return fitting
    raise CCNetError(f"{peer.name}: takes none of the frames {', '.join('{}×{}'.format(*size) for size in sizes)} px")


def compare(folder: Path, peer: Peer, size: Size, repeats: int, threads: int) -> Comparison:
    """Compare CCNet with a peer on a frame of patches in random colours.

    Args:
        folder: CCNet's artifact folder.
        peer: The peer.
        size: Height and width of the frame, px.
        repeats: Rounds that count, in each of which both take a turn.
        threads: CPU threads of each.

    Returns:
        The comparison.
    """
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        path = Path(scratch) / "frame.png"
        path.write_bytes(patches_png(size))
        costs = {
            CCNET: _cost_in_process(CCNET, folder, path, threads),
            PEER: _cost_in_process(PEER, peer.path, path, threads),
        }
        run = stack.enter_context(Reconstructor.open(folder, input_space="camera", threads=threads))
        works: dict[str, Callable[[], Array]] = {
            CCNET: lambda: run(read_frame(path)),
            PEER: lambda: peer(read_frame(path)),
        }
        timings, _ = take_turns(works, repeats)
    return Comparison(size=size, timings=timings, costs=costs)


def _cost_in_process(which: str, network: Path, frame: Path, threads: int) -> Cost:
    command = [sys.executable, "-c", _PROCESS, which, str(network), str(frame), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        last_line = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise CCNetError(f"{network}: cannot be measured in a process of its own ({last_line})")
    load, first_cube, peak_mb = json.loads(done.stdout.splitlines()[-1])
    return Cost(load=load, first_cube=first_cube, peak_mb=peak_mb)


def document(peer: Peer, comparisons: Sequence[Comparison], run: dict[str, Any]) -> dict[str, Any]:
    """Return the content of ``against.json``: times of frames in milliseconds, of loading in seconds, memory in MB."""
    rows = [asdict(row) | {"ratio": row.ratio, "least_ratio": row.least_ratio} for row in comparisons]
    about = {"file": peer.name, "size": peer.size, "multiple": peer.multiple}
    return {"machine": machine(), "run": run, "peer": about, "rows": rows}


def markdown(document: dict[str, Any]) -> str:
    """Return a table for a page: the ratios first, then each network's time, load time and memory."""
    lines = [
        "{cpu} ({instructions}), {threads} threads: ".format(**document["machine"] | document["run"])
        + f"{document['peer']['file']} (peer) beside CCNet, a whole frame from PNG to cube, both in turns.",
        "",
        "| frame, px | peer ÷ CCNet, medians | least | CCNet, ms (least to most) | peer, ms (least to most) "
        "| to the first cube, s | memory, MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in document["rows"]:
        times = [_spread(row["timings"][name]) for name in (CCNET, PEER)]
        costs = [row["costs"][name] for name in (CCNET, PEER)]
        cells = [
            "{}×{}".format(*row["size"]),
            f"{row['ratio']:.2f}×",
            f"{row['least_ratio']:.2f}×",
            *times,
            " and ".join(f"{cost['first_cube']:.2f}" for cost in costs),
            " and ".join("–" if cost["peak_mb"] is None else f"{cost['peak_mb']:.0f}" for cost in costs),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    loads = [min(row["costs"][name]["load"] for row in document["rows"]) for name in (CCNET, PEER)]
    lines += [
        "",
        "To open: CCNet {:.2f} s, the peer {:.2f} s. The last two columns are CCNet's and the peer's.".format(*loads),
    ]
    return "\n".join(lines) + "\n"


def _spread(timing: dict[str, float]) -> str:
    return "{:.0f} ({:.0f} to {:.0f})".format(timing["median"], timing["least"], timing["most"])
