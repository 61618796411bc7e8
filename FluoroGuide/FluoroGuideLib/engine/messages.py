"""Messages between client and worker: framing, and values without pickle.

A frame is ``magic (8 bytes), header length (uint32), body length (uint64), header, body``, little-endian.  The header
is JSON: ``{"kind", "fields", "arrays": [[dtype, shape], ...], "file"}``.  Arrays follow in the body, or, above
``INLINE_BYTES``, lie in an exchange file (see ``exchange``).  What JSON cannot say is written as a one-key object::

    {"__array__": i}  {"__scalar__": i}  {"__bytes__": i}     entry i of the arrays; numpy scalar; bytes
    {"__tuple__": [...]}  {"__map__": [[key, value], ...]}     tuple; dictionary with keys that are not plain text
    {"__data__": [module, class, {field: value}]}              a dataclass of this package, and of no other
    {"__enum__": [module, class, name]}  {"__path__": text}
    {"__image__": ...}  {"__transform__": ...}                 SimpleITK image, rigid or affine transform

Floats are exact (``repr``), NaN and infinities too.  Reading can only construct the types above, so a broken or
hostile stream gives a :class:`ProtocolError`, never code.  Image metadata are left behind: they may name a patient.

Kinds, client to worker: ``hello, set_volume, drop_volume, run, cancel, ping, shutdown``; worker to client: ``hello,
refused, progress, done, failed, pong``.  A message with another ``PROTOCOL`` or library version is refused.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import json
import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError
from .exchange import Exchange

PROTOCOL = 1
MAGIC = b"\x93FGENG\r\n"
INLINE_BYTES = 32 << 10
MAX_HEADER_BYTES = 16 << 20
MAX_BODY_BYTES = 1 << 20
_PREFIX = struct.Struct("<8sIQ")
_PACKAGE = __package__.rpartition(".")[0]
_DTYPE_KINDS = "biufcSU"
_TRANSFORMS = ("Euler3DTransform", "VersorRigid3DTransform", "AffineTransform", "TranslationTransform")


class ProtocolError(FluoroGuideError):
    """The stream between client and worker is broken."""

    def __init__(self, detail: str) -> None:
        sentence = "The registration process and its owner no longer understand each other"
        super().__init__(sentence, detail, "Try again; a new process starts by itself.")


@dataclass(frozen=True)
class VolumeReference:
    """Stands for a volume that the worker already has."""

    id: int


# ---- values -> JSON ---------------------------------------------------------------------------------------------
def pack(value: object, arrays: list[np.ndarray]) -> object:
    """The value as plain JSON objects; arrays are appended to ``arrays``.

    Raises
    ------
    FluoroGuideError
        A type that cannot be sent.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return [pack(v, arrays) for v in value]
    if type(value) is tuple:
        return {"__tuple__": [pack(v, arrays) for v in value]}
    if isinstance(value, dict):
        if all(type(k) is str and not k.startswith("__") for k in value):
            return {k: pack(v, arrays) for k, v in value.items()}
        return {"__map__": [[pack(k, arrays), pack(v, arrays)] for k, v in value.items()]}
    if isinstance(value, np.ndarray):
        return {"__array__": _keep(value, arrays)}
    if isinstance(value, np.generic):
        return {"__scalar__": _keep(np.asarray(value), arrays)}
    if isinstance(value, (bytes, bytearray)):
        return {"__bytes__": _keep(np.frombuffer(value, np.uint8), arrays)}
    if isinstance(value, Path):
        return {"__path__": str(value)}
    return _pack_object(value, arrays)


def _pack_object(value: object, arrays: list[np.ndarray]) -> object:
    cls = type(value)
    if cls.__module__.startswith(_PACKAGE + ".") and "<" not in cls.__qualname__:
        name = [cls.__module__[len(_PACKAGE) + 1 :], cls.__qualname__]
        if isinstance(value, enum.Enum):
            return {"__enum__": [*name, value.name]}
        if dataclasses.is_dataclass(value):
            return {"__data__": [*name, {f.name: pack(getattr(value, f.name), arrays) for f in dataclasses.fields(value) if f.init}]}
    if cls.__module__.split(".")[0] == "SimpleITK":
        if cls.__name__ == "Image":
            return _pack_image(value, arrays)
        transform = value.Downcast() if cls.__name__ == "Transform" else value
        if type(transform).__name__ in _TRANSFORMS:
            numbers = [list(transform.GetParameters()), list(transform.GetFixedParameters())]
            return {"__transform__": [type(transform).__name__, transform.GetDimension(), *numbers]}
    raise FluoroGuideError("A value of this type cannot be sent to or from the registration process", cls.__name__)


def _keep(array: np.ndarray, arrays: list[np.ndarray]) -> int:
    if array.dtype.kind not in _DTYPE_KINDS:
        raise FluoroGuideError("An array of this type cannot be sent to or from the registration process", array.dtype)
    arrays.append(np.asarray(array, order="C"))
    return len(arrays) - 1


def _pack_image(image: object, arrays: list[np.ndarray]) -> dict:
    import SimpleITK as sitk

    return {"__image__": {
        "array": _keep(sitk.GetArrayViewFromImage(image), arrays), "vector": image.GetNumberOfComponentsPerPixel() > 1,
        "origin": list(image.GetOrigin()), "spacing": list(image.GetSpacing()), "direction": list(image.GetDirection()),
    }}


# ---- JSON -> values ---------------------------------------------------------------------------------------------
def unpack(value: object, arrays: list[np.ndarray]) -> object:
    """The value that :func:`pack` wrote."""
    if isinstance(value, list):
        return [unpack(v, arrays) for v in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        key, content = next(iter(value.items()))
        if key.startswith("__"):
            return _UNPACK[key](content, arrays)
    return {k: unpack(v, arrays) for k, v in value.items()}


def _named(module: str, name: str) -> type:
    if not re.fullmatch(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*", module) or not re.fullmatch(r"\w+(\.\w+)*", name):
        raise ValueError("not a class of this package")
    found = importlib.import_module(f"{_PACKAGE}.{module}")
    for part in name.split("."):
        found = getattr(found, part)
    if not isinstance(found, type) or found.__module__ != f"{_PACKAGE}.{module}":
        raise ValueError("not a class of this package")
    return found


def _unpack_data(content: list, arrays: list[np.ndarray]) -> object:
    cls = _named(content[0], content[1])
    if not dataclasses.is_dataclass(cls):
        raise ValueError("not a dataclass")
    return cls(**{name: unpack(v, arrays) for name, v in content[2].items()})


def _unpack_enum(content: list, arrays: list[np.ndarray]) -> object:
    cls = _named(content[0], content[1])
    if not issubclass(cls, enum.Enum):
        raise ValueError("not an enumeration")
    return cls[content[2]]


def _unpack_image(content: dict, arrays: list[np.ndarray]) -> object:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(arrays[content["array"]], isVector=content["vector"])
    image.SetOrigin(content["origin"])
    image.SetSpacing(content["spacing"])
    image.SetDirection(content["direction"])
    return image


def _unpack_transform(content: list, arrays: list[np.ndarray]) -> object:
    import SimpleITK as sitk

    name, dimension, parameters, fixed = content
    if name not in _TRANSFORMS:
        raise ValueError("not a transform that can be sent")
    transform = getattr(sitk, name)(dimension) if name in ("AffineTransform", "TranslationTransform") else getattr(sitk, name)()
    transform.SetFixedParameters(fixed)
    transform.SetParameters(parameters)
    return transform


_UNPACK = {
    "__array__": lambda i, arrays: arrays[i],
    "__scalar__": lambda i, arrays: arrays[i][()],
    "__bytes__": lambda i, arrays: arrays[i].tobytes(),
    "__tuple__": lambda content, arrays: tuple(unpack(v, arrays) for v in content),
    "__map__": lambda content, arrays: {unpack(k, arrays): unpack(v, arrays) for k, v in content},
    "__path__": lambda content, arrays: Path(content),
    "__data__": _unpack_data, "__enum__": _unpack_enum, "__image__": _unpack_image, "__transform__": _unpack_transform,
}


# ---- frames -----------------------------------------------------------------------------------------------------
def arrays_of(value: object) -> list[np.ndarray]:
    """The arrays that :func:`encode` would write for a field, in their order."""
    arrays: list[np.ndarray] = []
    pack(value, arrays)
    return arrays


def encode(kind: str, fields: dict, exchange: Exchange | None = None, written: str | None = None) -> bytes:
    """One frame.  Arrays above ``INLINE_BYTES`` in all go into a file of the exchange; ``written`` names it when that was done before.

    Raises
    ------
    FluoroGuideError
        A value that cannot be sent, or no room for it.
    """
    arrays: list[np.ndarray] = []
    header = {"kind": kind, "fields": {k: pack(v, arrays) for k, v in fields.items()}, "file": None}
    header["arrays"] = [[a.dtype.str, list(a.shape)] for a in arrays]
    inline = written is None and (exchange is None or sum(a.nbytes for a in arrays) <= INLINE_BYTES)
    if written is not None:
        header["file"] = written
    elif not inline:
        header["file"] = exchange.write(arrays)
    body = b"".join(a.tobytes() for a in arrays) if inline else b""
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    if len(text) > MAX_HEADER_BYTES or len(body) > MAX_BODY_BYTES:
        if exchange is not None:
            exchange.discard(header["file"])
        raise FluoroGuideError("A message to or from the registration process is too long", f"{(len(text) + len(body)) / 1e6:.1f} MB")
    return _PREFIX.pack(MAGIC, len(text), len(body)) + text + body


@dataclass(frozen=True)
class Message:
    """One frame as received; arrays are read by :meth:`read`, so that a thread that only routes messages stays quick."""

    kind: str
    header: dict
    body: bytes

    def peek(self, name: str) -> object:
        """A plain field (number or text) without reading arrays; None when absent."""
        return self.header["fields"].get(name)

    def read(self, exchange: Exchange | None = None) -> dict:
        """All fields.

        Raises
        ------
        ProtocolError
            Contents that are not what :func:`encode` writes.
        FluoroGuideError
            A dataclass refused its values.
        """
        try:
            arrays = self._arrays(exchange)
            return {k: unpack(v, arrays) for k, v in self.header["fields"].items()}
        except FluoroGuideError:
            raise
        except Exception as error:
            raise ProtocolError(f"{self.kind}: {type(error).__name__}") from error

    def discard(self, exchange: Exchange) -> None:
        """Delete the message's file without reading it."""
        exchange.discard(self.header["file"])

    def _arrays(self, exchange: Exchange | None) -> list[np.ndarray]:
        layout = [_layout(d, s) for d, s in self.header["arrays"]]
        if self.header["file"] is not None:
            return exchange.read(self.header["file"], layout)
        arrays, offset = [], 0
        for dtype, shape in layout:
            count = math.prod(shape)
            # A copy: the caller may write into it, and the frame's memory is freed.
            arrays.append(np.frombuffer(self.body, dtype, count, offset).reshape(shape).copy())
            offset += count * dtype.itemsize
        if offset != len(self.body):
            raise ValueError("body of another length")
        return arrays


def _layout(dtype: str, shape: list[int]) -> tuple[np.dtype, tuple[int, ...]]:
    dtype = np.dtype(str(dtype))
    if dtype.kind not in _DTYPE_KINDS or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("not an array that can be sent")
    return dtype, tuple(shape)


class Framer:
    """Cuts a byte stream into messages.

    Parameters
    ----------
    skip_noise
        Bytes before the *first* frame are put aside in ``noise`` instead of being an error: a launcher or a
        ``sitecustomize`` may print before the worker takes its stdout over.
    """

    def __init__(self, skip_noise: bool = False) -> None:
        self._buffer, self._skipping, self.noise = bytearray(), skip_noise, b""

    def feed(self, data: bytes) -> list[Message]:
        """The messages that ``data`` completes.

        Raises
        ------
        ProtocolError
            Bytes that are no frame.
        """
        self._buffer += data
        if self._skipping and not self._skip():
            return []
        messages = []
        while len(self._buffer) >= _PREFIX.size:
            magic, header_bytes, body_bytes = _PREFIX.unpack_from(self._buffer)
            if magic != MAGIC or header_bytes > MAX_HEADER_BYTES or body_bytes > MAX_BODY_BYTES:
                raise ProtocolError("no frame where one must begin")
            end = _PREFIX.size + header_bytes + body_bytes
            if len(self._buffer) < end:
                break
            messages.append(_message(bytes(self._buffer[_PREFIX.size : _PREFIX.size + header_bytes]), bytes(self._buffer[end - body_bytes : end])))
            del self._buffer[:end]
        return messages

    def _skip(self) -> bool:
        start = self._buffer.find(MAGIC)
        noise = start if start >= 0 else max(0, len(self._buffer) - len(MAGIC) + 1)
        self.noise = (self.noise + bytes(self._buffer[:noise]))[-65536:]
        del self._buffer[:noise]
        self._skipping = start < 0
        return not self._skipping


def _message(text: bytes, body: bytes) -> Message:
    try:
        header = json.loads(text)
        ok = isinstance(header["kind"], str) and isinstance(header["fields"], dict) and isinstance(header["arrays"], list)
        if not ok or not (header["file"] is None or isinstance(header["file"], str)):
            raise ValueError("incomplete header")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ProtocolError(f"header: {type(error).__name__}") from error
    return Message(header["kind"], header, body)
