"""Runs the files of `make_files.py` under the onnxruntime of this environment, which has no more.

    python tests/older_onnxruntime/run_files.py FOLDER

Every file that says that this release loads it must, and give what Keras gave; the others must be
refused. Ends with 1 if one does not.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported

import numpy as np
import onnxruntime

# Loaded by older releases, which end runs of rows of several lengths with an error (a Where in a
# branch), and give no other numbers. Seen at 1.17, 1.20 and 1.24; right at 1.32.
ENDS_BEFORE = {"attention_ragged": (1, 32), "attention_ragged_to_another": (1, 32)}


def main(folder: Path) -> int:
    """How many files are not as they say."""
    onnxruntime.set_default_logger_severity(4)  # what is refused is told below
    files = json.loads((folder / "files.json").read_text())
    release = [int(number) for number in onnxruntime.__version__.split(".")[:2]]
    ran, refused, ended, faults = 0, 0, 0, []
    for name, (since, tolerance) in sorted(files.items()):
        try:
            session = onnxruntime.InferenceSession(
                str(folder / f"{name}.onnx"), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors share no base class
            if release < since:
                refused += 1
            else:
                faults.append(f"{name}: is to load since {since}: {str(error)[:300]}")
            continue
        if release < since:
            faults.append(f"{name}: loads, and says it does since {since} only")
        ran += 1
        found = differences(session, folder, name, tolerance)
        if tuple(release) < ENDS_BEFORE.get(name, (0, 0)):
            ended += bool(found)
            found = [fault for fault in found if "Where" not in fault]
        faults += [f"{name}: {fault}" for fault in found]
    print(
        f"onnxruntime {onnxruntime.__version__}, numpy {np.__version__}: {ran} files run, "
        f"{refused} refused as they say, {ended} ended by an error as known, {len(faults)} faults"
    )
    print(*faults, sep="\n", end="\n" if faults else "")
    return len(faults)


def differences(
    session: onnxruntime.InferenceSession, folder: Path, name: str, tolerance: float
) -> list[str]:
    """Where the outputs are not those of Keras."""
    with np.load(folder / f"{name}.npz") as arrays:
        keys = [key.split("/", 2) for key in arrays.files]
        found = []
        for sample in sorted({number for number, _, _ in keys}):
            inputs = {n: arrays[f"{i}/{s}/{n}"] for i, s, n in keys if (i, s) == (sample, "in")}
            wanted = {n: arrays[f"{i}/{s}/{n}"] for i, s, n in keys if (i, s) == (sample, "out")}
            read = {value.name for value in session.get_inputs()}
            feeds = {n: value for n, value in inputs.items() if n in read}
            try:
                got = session.run(list(wanted), feeds)
            except Exception as error:  # onnxruntime's errors share no base class
                found.append(f"sample {sample} fails: {str(error)[:300]}")
                continue
            found += [
                f"sample {sample}, output {n}: {fault}"
                for (n, want), have in zip(wanted.items(), got, strict=True)
                if (fault := difference(want, have, tolerance))
            ]
    return found


def difference(want: np.ndarray, have: np.ndarray, tolerance: float) -> str:
    """What is wrong with an output, if anything; the tolerance is of its largest magnitude too."""
    if (want.dtype, want.shape) != (have.dtype, have.shape):
        return f"{have.dtype} {have.shape}, not {want.dtype} {want.shape}"
    error = np.abs(want.astype("float64") - have.astype("float64")).max(initial=0.0)
    allowed = tolerance * max(1.0, np.abs(want.astype("float64")).max(initial=0.0))
    return "" if error <= allowed else f"off by {error:.2g}, where {allowed:.2g} is allowed"


if __name__ == "__main__":
    sys.exit(1 if main(Path(sys.argv[1])) else 0)
