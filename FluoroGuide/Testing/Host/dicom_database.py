"""A stand-in for Slicer's DICOM database (``ctkDICOMDatabase``) over files in memory: for tests.  Its lists are tuples, as in Slicer."""

from __future__ import annotations


class Database:
    """``files``: path -> its tags (``"0008,0060"`` ...) with ``patient``, ``name``, ``study``, ``series`` and ``uid``."""

    isOpen = True

    def __init__(self, files: dict[str, dict[str, str]]) -> None:
        self._files, self.calls = files, 0

    def _listed(self, wanted: str, **given: str) -> tuple:
        self.calls += 1
        return tuple(dict.fromkeys(f[wanted] for f in self._files.values() if all(f[k] == v for k, v in given.items())))

    def patients(self):
        return self._listed("patient")

    def studiesForPatient(self, patient):
        return self._listed("study", patient=patient)

    def seriesForStudy(self, study):
        return self._listed("series", study=study)

    def filesForSeries(self, series):
        return tuple(path for path, f in self._files.items() if f["series"] == series)

    def nameForPatient(self, patient):
        return next(f["name"] for f in self._files.values() if f["patient"] == patient)

    def descriptionForStudy(self, study):
        return next(f.get("0008,1030", "") for f in self._files.values() if f["study"] == study)

    def descriptionForSeries(self, series):
        return next(f.get("0008,103e", "") for f in self._files.values() if f["series"] == series)

    def fileValue(self, path, tag):
        return self._files[path].get(tag, "")

    def fileForInstance(self, uid):
        return next((path for path, f in self._files.items() if f["uid"] == uid), "")

    def seriesForFile(self, path):
        return self._files[path]["series"] if path in self._files else ""

    def studyForSeries(self, series):
        return next((f["study"] for f in self._files.values() if f["series"] == series), "")
