"""The page that every report is, and the tables on it."""

from dataclasses import asdict
from pathlib import Path

import pytest

from clearcall.core.files import read_csv, write_csv
from clearcall.data.manifest import ImageRecord
from clearcall.reporting.page import Page, number
from clearcall.reporting.tables import markdown_table

MACHINE = {
    "cpu": "Abacus 1",
    "cores": 2,
    "instructions": ["avx2"],
    "memory_gib": 8.0,
    "system": "Linux x86_64",
    "python": "3.11.7",
}
PAGE = """# Title

Made by `clearcall x` on 2026-01-02, on Abacus 1 with 2 cores (avx2), 8 GiB, Linux x86_64, Python 3.11.7; numpy 2.0.

- one
- two

| name   |   fps |
|:-------|------:|
| a      |   1.5 |
| b      |       |

<details>
<summary>params.yaml</summary>

```yaml
seed: 1
```

</details>
"""


def test_a_page_by_hand(tmp_path: Path) -> None:
    page = Page("Title")
    page.made_by("clearcall x", {"numpy": "2.0"}, on=MACHINE, date="2026-01-02")
    page.add_list("one", "two")
    page.add("", markdown_table(["name", "fps"], [["a", number(1.5, ".1f")], ["b", number(None, ".1f")]]))
    page.add_code("params.yaml", "seed: 1\n", "yaml")
    assert page.write(tmp_path / "page.md").read_text(encoding="utf-8") == PAGE
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]


def test_csv_is_written_of_records_and_of_mappings(tmp_path: Path) -> None:
    record = ImageRecord("a.png", "0", 3, 2, "RGB", "made", "CC0, 1.0", "a", "train")
    write_csv(tmp_path / "records.csv", [record])
    assert read_csv(tmp_path / "records.csv") == [{name: str(value) for name, value in asdict(record).items()}]
    write_csv(tmp_path / "rows.csv", [{"a": 1, "b": None}, {"a": 2.5, "b": "x"}])
    assert (tmp_path / "rows.csv").read_bytes() == b"a,b\n1,\n2.5,x\n"
    with pytest.raises(ValueError, match="fields not in fieldnames"):
        write_csv(tmp_path / "rows.csv", [{"a": 1}, {"c": 2}])
