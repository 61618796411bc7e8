"""Tags of a run wherever the object keeps them: at the top (classic XA, RF) or in functional groups (Enhanced XA, RF).

An Enhanced object (PS3.3 A.47, C.7.6.16) holds most of its tags in the items of the *Shared* and *Per-Frame Functional
Groups Sequences*, one level down in one macro sequence each.  Which macro a tag belongs to is not assumed: every
sequence of an item is looked through, so a vendor's private or misplaced macro is found as well.
"""

from __future__ import annotations

SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_DEPTH = 2
_MAX_FRAMES = 20_000


class FrameTags:
    """Looks up tags by keyword: the frame's own group first, then the shared groups, then the top of the object.

    Parameters
    ----------
    dataset
        pydicom dataset, or an empty dictionary for a picture without tags.
    """

    def __init__(self, dataset: object) -> None:
        self.dataset = dataset
        self._shared_item = _first(_items(dataset, SHARED))
        self._frame_items = _items(dataset, PER_FRAME)[:_MAX_FRAMES]
        self._shared = _index(self._shared_item)
        self._frames = [_index(item) for item in self._frame_items]

    @property
    def enhanced(self) -> bool:
        """Whether the object has functional groups."""
        return bool(self._shared or self._frames)

    @property
    def frame_count(self) -> int:
        """Frames that have a group of their own."""
        return len(self._frames)

    def get(self, keyword: str, default: object = None) -> object:
        """The value for the first frame."""
        return self.of_frame(keyword, 0, default)

    def of_frame(self, keyword: str, frame: int, default: object = None) -> object:
        """The value for a frame (from 0)."""
        for groups in (self._frames[frame] if frame < len(self._frames) else {}, self._shared):
            if keyword in groups:
                return groups[keyword]
        return self.dataset.get(keyword, default)

    def items(self, keyword: str, frame: int = 0) -> list:
        """All items of a macro sequence for a frame: its own group's, else the shared group's, else the object's; empty when absent."""
        for holder in (self._frame_items[frame] if frame < len(self._frame_items) else None, self._shared_item, self.dataset):
            found = _items(holder, keyword) if holder is not None else []
            if found:
                return found
        return []

    def varies(self, keyword: str) -> bool:
        """Whether the per-frame groups hold the tag."""
        return any(keyword in groups for groups in self._frames)

    def __contains__(self, keyword: str) -> bool:
        return self.get(keyword) is not None


def _items(dataset: object, keyword: str) -> list:
    try:
        return list(dataset.get(keyword) or [])
    except Exception:  # a damaged sequence: pydicom raises many kinds; it counts as absent
        return []


def _first(items: list) -> object | None:
    return items[0] if items else None


def _index(item: object | None, depth: int = _DEPTH) -> dict[str, object]:
    """Keyword -> value of everything in the first items of an item's sequences; the shallowest wins."""
    found: dict[str, object] = {}
    if item is None or depth == 0:
        return found
    deeper = []
    for tag in list(item.keys()):
        try:
            element = item[tag]
            if element.VR != "SQ":
                continue
            macro = _first(list(element.value or []))
        except Exception:  # damaged elements count as absent
            continue
        if macro is None:
            continue
        for inner in list(macro.keys()):
            try:
                element = macro[inner]
                if element.keyword and not element.is_empty:
                    found.setdefault(element.keyword, element.value)
            except Exception:
                continue
        deeper.append(macro)
    for macro in deeper:
        for keyword, value in _index(macro, depth - 1).items():
            found.setdefault(keyword, value)
    return found
