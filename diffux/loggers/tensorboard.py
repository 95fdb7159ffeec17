"""TensorBoard events, in the run's folder tensorboard/."""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Mapping
from typing import Any


def logger(workdir: Any) -> TensorBoard:
    """Events in `workdir`/tensorboard: numbers, and the pictures of samples."""
    return TensorBoard(pathlib.Path(workdir) / "tensorboard")


class TensorBoard:
    """Events that the caller writes: the package's own writer does it in a thread, which ends with the first error, and a run
    would then wait for its queue for ever.

    After an error another file is begun, since readers stop where an event is cut off.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder, self._writer, self._files = folder, None, 0

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        from tensorboardX.summary import scalar

        self._write(step, [scalar(key, value) for key, value in numbers.items()])

    def picture(self, step: int, path: pathlib.Path) -> None:
        from PIL import Image
        from tensorboardX.proto.summary_pb2 import Summary

        with Image.open(path, formats=("PNG",)) as picture:
            width, height, channels = *picture.size, len(picture.getbands())
        shown = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=path.read_bytes())
        self._write(step, [Summary(value=[Summary.Value(tag="samples", image=shown)])])

    def _write(self, step: int, summaries: list[Any]) -> None:
        # Imported with the first row, when the first step is already behind us.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event

        try:
            if self._writer is None:
                self._folder.mkdir(exist_ok=True)
                self._files += 1
                self._writer = EventsWriter(str(self._folder / "events"), f".{self._files}" if self._files > 1 else "")
            for summary in summaries:
                self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
            self._writer.flush()
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):  # everything was flushed, or its error is known
                self._writer.close()
        self._writer = None
