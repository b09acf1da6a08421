"""The scripts of docs/trainers.md, run as they stand."""

import re
import warnings
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "trainers.md"


def scripts(heading):
    """The blocks of Python below a heading of the page."""
    (section,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    return re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S)


def run(script):
    """What the script has defined at its end. Libraries warn of their own insides, which no user of popup can mend."""
    names = {"__name__": "script"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(script, str(PAGE), "exec"), names)
    return names
