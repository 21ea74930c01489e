"""What a look at shards or tars found wrong: counted by rule, with the first few of each named."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

# Rule -> what it means, and whether training on the data would be wrong (an error) or only less good.
RULES: dict[str, tuple[str, bool]] = {
    "folder": ("cannot be opened", True),
    "checksum": ("the file is not the one its manifest describes", True),
    "layout": ("no whole tar, or not what the index says", True),
    "key": ("several samples with one key", True),
    "split": ("in another split than the hash of its key says", True),
    "leak": ("a validation picture that is also trained on", True),
    "picture": ("no picture that can be decoded", True),
    "size": ("a picture of another size than the manifest says", True),
    "text": ("a caption that is no UTF-8", True),
    "captions": ("other captions to draw from than the metadata has", True),
    "metadata": ("metadata that is no JSON object", True),
    "code": ("a member that other readers would run as code", True),
    "path": ("a member whose name leads out of the folder, or into a shell", True),
    "link": ("a link or device among the members", True),
    "stray": ("a file that belongs to no split", False),
    "twin": ("the same picture under several keys", False),
    "caption": ("an empty caption", False),
}
NAMED = 20  # of each rule


@dataclass
class Findings:
    """Faults by rule: how many (`counts`), and the first of them as (where, what) (`named`)."""

    counts: Counter[str] = field(default_factory=Counter)
    named: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def add(self, rule: str, where: str, what: str, *, count: int = 1) -> None:
        """Count a fault; KeyError for a rule that there is not."""
        RULES[rule]
        self.counts[rule] += count
        named = self.named.setdefault(rule, [])
        if len(named) < NAMED:
            named.append((where, what))

    def merge(self, other: Findings) -> None:
        """Add those of another look."""
        self.counts.update(other.counts)
        for rule, named in other.named.items():
            mine = self.named.setdefault(rule, [])
            mine += named[: NAMED - len(mine)]

    @property
    def errors(self) -> int:
        return sum(count for rule, count in self.counts.items() if RULES[rule][1])

    @property
    def warnings(self) -> int:
        return sum(self.counts.values()) - self.errors

    def plain(self) -> dict[str, Any]:
        """As JSON: rule -> its meaning, level, count and the first of them."""
        return {
            rule: {
                "meaning": meaning,
                "level": "error" if error else "warning",
                "count": self.counts[rule],
                "first": [{"where": where, "what": what} for where, what in self.named[rule]],
            }
            for rule, (meaning, error) in RULES.items()
            if self.counts[rule]
        }
