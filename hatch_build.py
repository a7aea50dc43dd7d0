"""Build hook: compiles the kernels where a C compiler is found; without one the wheel is pure Python.

`python hatch_build.py` compiles them next to their sources.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

KERNELS = ("codecs/storefs_codecs/kernels", "storefs/kernels")
FLAGS = ("-std=c11", "-O3", "-fPIC", "-shared", "-fvisibility=hidden")


class KernelBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the compiled kernels to the wheel, whose tag then names the platform."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - part of the interface
        """Compile; called by hatchling before it gathers the files."""
        built = compile_kernels(Path(self.root))
        if built:
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["artifacts"] += [f"/{path.relative_to(self.root).as_posix()}" for path in built]
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform}"


def compile_kernels(root: Path) -> list[Path]:
    """The libraries compiled from the C sources below `root`; empty without a working compiler."""
    suffix = ".dll" if sys.platform == "win32" else ".so"
    compiler = _compiler()
    built = []
    for source in sorted(path for folder in KERNELS for path in (root / folder).glob("*.c")):
        library = source.with_name(f"lib{source.stem}{suffix}")
        library.unlink(missing_ok=True)
        if compiler and _compiled([*compiler, *FLAGS, str(source), "-o"], library):
            built.append(library)
    return built


def _compiler() -> list[str] | None:
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    return next(([name] for name in ("cc", "gcc", "clang") if shutil.which(name)), None)


def _compiled(command: list[str], library: Path) -> bool:
    """Whether the library could be made; it appears whole or not at all."""
    unfinished = library.with_suffix(".unfinished")
    try:
        subprocess.run([*command, str(unfinished)], check=True, capture_output=True)  # noqa: S603 - the user's compiler
    except (OSError, subprocess.CalledProcessError):
        unfinished.unlink(missing_ok=True)
        return False
    unfinished.replace(library)
    return True


if __name__ == "__main__":
    sys.stdout.write("".join(f"{path}\n" for path in compile_kernels(Path(__file__).parent)))
