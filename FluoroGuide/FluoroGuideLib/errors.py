"""The one error type that reaches users."""

from __future__ import annotations


class FluoroGuideError(Exception):
    """Bad input or an impossible request, told in one sentence.

    Parameters
    ----------
    what
        What is wrong, naming the thing (``"The X-ray has no pixel spacing"``).
    value
        The offending value or file name; left out when ``None``.
    next_step
        What the user can do next, as a sentence.
    """

    def __init__(self, what: str, value: object = None, next_step: str | None = None) -> None:
        self.what, self.value, self.next_step = what, value, next_step
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """One line: what, which value, what to do next."""
        text = _short(self.what).rstrip(".")
        if self.value is not None:
            text += f" ({_short(self.value)})"
        text += "."
        if self.next_step:
            text += " " + self.next_step.rstrip(".") + "."
        # What a file says may hold anything: no control or direction characters, and nothing that no terminal can print.
        return " ".join("".join(c if c.isprintable() else " " for c in text).encode("utf-8", "replace").decode().split())

    def __str__(self) -> str:
        return self.message


MOST_LETTERS = 400


def _short(value: object) -> str:
    """A value as text; of one without end its beginning."""
    try:
        text = str(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list in itself
        text = f"a very long {type(value).__name__}"
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 3] + "..."


class CancelledError(FluoroGuideError):
    """The user cancelled; nothing was changed."""

    def __init__(self, what: str = "Cancelled by the user") -> None:
        super().__init__(what)
