"""Reports as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any


class JsonReport:
    """A dataclass that can be saved."""

    def to_dict(self) -> dict[str, Any]:
        """Everything, in JSON's types; infinities and NaN as text, for JSON has none."""
        return finite(asdict(self))  # type: ignore[call-overload]

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=2)

    def brief(self) -> str:
        """What the command line prints; the whole of it where that is short."""
        return str(self)

    def to_html(self) -> str:
        """One page with plots, which needs no other file."""
        raise NotImplementedError

    def save(self, filepath: str | Path) -> Path:
        """Writes `to_json` to a `.json` file, `to_html` to an `.html` file."""
        path = Path(filepath)
        writers = {".json": self.to_json, ".html": self.to_html}
        if path.suffix not in writers:
            raise ValueError(
                f"A report is saved as .json or .html. Received: filepath={str(filepath)!r}"
            )
        path.write_text(writers[path.suffix]() + "\n", encoding="utf-8")
        return path


def finite(value: Any) -> Any:
    """The value with text in place of infinities and NaN, and lists in place of tuples."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
