"""Whether the overlay may look good: one small state machine, asked for every frame.

States: ``ok``; ``hold`` - no fluoroscopy now, the last image with its age (fluoroscopy is intermittent); ``moved`` -
the target bone has left its place; ``stale`` - something the registration rests on changed; ``lost`` - the image no
longer shows what was registered; ``fail`` - there is no usable registration.  Only ``ok`` and ``hold`` are drawn in colour.
"""

from __future__ import annotations

from dataclasses import dataclass, field

GOOD = ("ok", "hold")
STALE_CAUSES = {
    "patient": "another patient was opened", "volume": "the volume was edited", "carm": "the C-arm or the table moved",
    "unchecked": "fluoroscopy resumed: its first image is being checked", "stream": "the live stream has died",
    "track": "the target was not found again where it was last",
}


@dataclass
class GuidanceState:
    """The machine.

    Attributes
    ----------
    stream_dead_seconds
        A stream that is *on* and gives nothing for so long has died.  When the pedal is released (``fluoroscopy_off``)
        nothing is expected and the last image is held.
    """

    stream_dead_seconds: float = 1.0
    registered: bool = False
    failed: bool = False
    streaming: bool = False
    alignment: str = "ok"
    causes: set[str] = field(default_factory=set)
    last_frame_at: float | None = None

    # ---- events ----
    def registration_done(self, verdict: str) -> None:
        """A new registration: ``pass`` and ``warn`` are usable; it answers every earlier doubt but a dead stream."""
        self.registered, self.failed = True, verdict == "fail"
        self.alignment = "ok"
        self.causes -= {"patient", "volume", "carm", "unchecked", "track"}

    def patient_changed(self) -> None:
        """Another patient or scene: nothing of the old registration holds."""
        self.registered = False
        self.causes.add("patient")

    def volume_edited(self) -> None:
        """The registered volume or its transform was changed."""
        self.causes.add("volume")

    def carm_moved(self, follows: bool = False) -> None:
        """Angles, table or distances changed.  ``follows``: the new geometry is known, so the overlay follows once an image confirms it."""
        self.causes.add("unchecked" if follows else "carm")

    def fluoroscopy_on(self) -> None:
        """The stream starts (again): nothing is known of the patient until the first image was checked."""
        if not self.streaming:
            self.streaming = True
            self.causes.discard("stream")
            if self.last_frame_at is not None:
                self.causes.add("unchecked")
            self.last_frame_at = None

    def fluoroscopy_off(self) -> None:
        """The pedal was released: the last image is held."""
        self.streaming = False

    def frame_arrived(self, now: float) -> None:
        """A frame came in but was not analysed yet."""
        if not self.streaming:
            was = self.last_frame_at
            self.streaming = True
            if was is not None:
                self.causes.add("unchecked")
        self.last_frame_at = now
        self.causes.discard("stream")

    def frame_checked(self, alignment: str) -> None:
        """The motion watch judged a frame: ``ok``, ``moved`` or ``lost``."""
        self.alignment = alignment
        if alignment == "ok":
            self.causes.discard("unchecked")

    def tracked(self, found: bool) -> None:
        """The target was looked for from its last pose.  Where it was not found nothing looks good until it is, or is registered again."""
        if found:
            self.causes.discard("track")
        else:
            self.causes.add("track")

    # ---- answer ----
    def status(self, now: float) -> tuple[str, str]:
        """(state, one sentence why) at a time in seconds."""
        if self.streaming and self.last_frame_at is not None and now - self.last_frame_at > self.stream_dead_seconds:
            self.causes.add("stream")
            self.causes.add("unchecked")
        if self.failed:
            return "fail", "the registration failed"
        for cause in ("patient", "volume", "carm", "stream", "track"):
            if cause in self.causes:
                return "stale", STALE_CAUSES[cause]
        if not self.registered:
            return "fail", "nothing is registered"
        if self.alignment in ("moved", "lost"):
            return self.alignment, {"moved": "the target bone moved", "lost": "the image does not match the registered volume"}[self.alignment]
        if "unchecked" in self.causes:
            return "stale", STALE_CAUSES["unchecked"]
        if not self.streaming and self.last_frame_at is not None:
            from .live_overlay import age_note

            return "hold", f"last image, {age_note(now - self.last_frame_at)}"
        return "ok", ""

    def good(self, now: float) -> bool:
        """Whether the overlay may look good."""
        return self.status(now)[0] in GOOD
