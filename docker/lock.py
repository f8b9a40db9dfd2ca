"""Remake the lock files of the image after a change of pyproject.toml or constraints.txt: `make lock`.

`requirements.lock` and `build.lock` hold hashes of all files that PyPI has of a version, for any platform. So does
`torch-cuda.lock`. torch for CPUs comes from PyTorch's own index, which pip-compile is not asked about: `torch-cpu.lock` names
exact versions, and pip checks what it gets against the hash that the index gives.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
BUILD = "cyclonedx-bom==7.5.0\nsetuptools==82.0.1\n"
CUDA = re.compile(r"(torch|torchvision|triton|nvidia-|cuda-)")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def main() -> None:
    """Write the files."""
    root = FOLDER.parent
    blocks = compiled("--extra", "otel", "--constraint", str(root / "constraints.txt"), str(root / "pyproject.toml"))
    accelerated = [block for block in blocks if CUDA.match(block)]
    write("requirements", [block for block in blocks if block not in accelerated])
    write("torch-cuda", accelerated)
    versions = dict(re.findall(r"^(torch|torchvision)==(\S+)", "\n".join(accelerated), re.M))
    pins = [f"{name}=={version}+cpu\n" for name, version in versions.items()]
    write("torch-cpu", [f"--index-url {CPU_INDEX}\n", *pins])
    with tempfile.NamedTemporaryFile("w", suffix=".in") as wanted:
        wanted.write(BUILD)
        wanted.flush()
        write("build", compiled(wanted.name))


def compiled(*arguments: str) -> list[str]:
    """Return pinned requirements with their hashes, one a block."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output.txt"
        options = ["--quiet", "--generate-hashes", "--allow-unsafe", "--strip-extras", "--no-annotate", "--no-header"]
        command = [sys.executable, "-m", "piptools", "compile", *options, "--no-emit-index-url", "--no-emit-find-links"]
        subprocess.run([*command, "--output-file", str(output), *arguments], check=True)
        return re.findall(r"^[A-Za-z0-9].*\n(?:    .*\n)*", output.read_text(), re.M)


def write(name: str, blocks: list[str]) -> None:
    """Write a lock file."""
    (FOLDER / f"{name}.lock").write_text("# Made by `make lock`.\n" + "".join(blocks))


if __name__ == "__main__":
    main()
