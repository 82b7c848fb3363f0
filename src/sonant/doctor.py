"""What there is on this machine that decides whether and how fast sonant runs."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import version
from pathlib import Path

import av
import torch

CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "aac", "mp3", "opus", "vorbis", "flac")


def doctor() -> dict[str, str]:
    """Findings by name, as text; a codec counts if FFmpeg, as built into PyAV, decodes it."""
    missing = [name for name in CODECS if not _decodes(name)]
    ffmpeg = ".".join(map(str, av.library_versions["libavcodec"]))
    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "sonant": version("sonant"),
        "Python": platform.python_version(),
        "torch": f"{torch.__version__}, {torch.get_num_threads()} threads",
        "accelerators": ", ".join(devices) or "none; training runs on the processor",
        "PyAV": f"{av.__version__}, libavcodec {ffmpeg}",
        "codecs": f"missing: {', '.join(missing)}" if missing else ", ".join(CODECS),
        "processors": str(os.cpu_count()),
        "memory": f"{_memory() / 2**30:.1f} GiB",
        "space here": f"{shutil.disk_usage(Path.cwd()).free / 2**30:.0f} GiB free",
    }


def _decodes(name: str) -> bool:
    try:
        return not av.Codec(name, "r").is_encoder
    except av.codec.codec.UnknownCodecError:
        return False


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
