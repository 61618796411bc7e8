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
        text = self.what.rstrip(".")
        if self.value is not None:
            text += f" ({self.value})"
        text += "."
        if self.next_step:
            text += " " + self.next_step.rstrip(".") + "."
        return " ".join(text.split())

    def __str__(self) -> str:
        return self.message


class CancelledError(FluoroGuideError):
    """The user cancelled; nothing was changed."""

    def __init__(self, what: str = "Cancelled by the user") -> None:
        super().__init__(what)
