"""`solution.zip`: a submission, checked, packed and tried."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autometa.bundles.archive import Content, size_text, write_zip
from autometa.bundles.dry_run import DryRun, dry_run
from autometa.bundles.errors import BundleError
from autometa.bundles.files import BundleFile, list_files
from autometa.bundles.findings import Finding, error, fails, warning
from autometa.bundles.probe import probe
from autometa.bundles.shipped import find_bundle
from autometa.bundles.sources import check_classes, check_imports, find_imports, parse
from autometa.bundles.vendored import autometa_contents, readme, vendor_contents
from autometa.bundles.weights import choose_backbones, weights_contents
from ingestion.bundle import open_bundle, read_config
from ingestion.errors import InputError
from ingestion.model_file import MODEL_FILE

METADATA = b"# Tells the challenge platform that this is a code submission;\n# its content is not read.\n"
METADATA_FILES = ("metadata", "metadata.yaml")
LARGE_BYTES = 300_000_000
"""From here on, uploading may fail or take long."""
OWN_NAMES = ("autometa/", "vendor/", "weights/", "CARRIED.md")


@dataclass(frozen=True)
class Options:
    """How to make a bundle. `with_autometa` None: where the bundle imports it; `vendor`: what autometa needs beyond
    torch and timm comes along; `weights`: with those of `backbones`, by default of all that packages brought."""

    overwrite: bool = False
    with_autometa: bool | None = None
    vendor: bool = True
    weights: bool = False
    backbones: tuple[str, ...] = ()
    dry_run_s: float | None = 60.0


@dataclass
class Solution:
    """A bundle that was made, or why it was not: `archive` is None then."""

    bundle: str
    findings: list[Finding] = field(default_factory=list)
    archive: Path | None = None
    size_bytes: int = 0
    files: int = 0
    carries: tuple[str, ...] = ()
    dry_run: DryRun | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the zip file exists, without an error, and passed the dry run if there was one."""
        tried = self.dry_run is None or self.dry_run.succeeded
        return self.archive is not None and tried and not fails(self.findings)


def make_solution(name: str, archive: Path, options: Options = Options()) -> Solution:
    """Check the bundle `name` (a folder, a zip file or a baseline), write it to `archive` and try it on the demo.

    What is wrong with the bundle is in the findings. BundleError where the zip file cannot be written, WeightsError
    or ConfigError for backbones.
    """
    solution = Solution(name)
    if archive.exists() and not options.overwrite:
        raise BundleError(f"-o {archive}: exists; name another file or add --overwrite")
    with tempfile.TemporaryDirectory(prefix="autometa-bundle-") as scratch:
        try:
            folder = open_bundle(find_bundle(name), Path(scratch))
            files = [file for file in list_files(folder) if file.path.resolve() != archive.resolve()]
        except (InputError, BundleError) as problem:
            solution.findings.append(error("bundle", str(problem)))
            return solution
        uses_autometa = _check(folder, files, solution.findings)
        if fails(solution.findings):
            return solution
        contents: list[tuple[str, Content]] = [(file.name, file.path) for file in files]
        contents += _metadata(files, solution.findings)
        if options.weights or (uses_autometa if options.with_autometa is None else options.with_autometa):
            contents += _carried(options, files, Path(scratch))
            solution.carries = tuple(
                dict.fromkeys(n.split("/")[0] for n, _ in contents if n.startswith(OWN_NAMES))
            )
        solution.size_bytes = write_zip(archive, contents, overwrite=options.overwrite)
    solution.archive, solution.files = archive, len(contents)
    if solution.size_bytes > LARGE_BYTES:
        size = size_text(solution.size_bytes)
        solution.findings.append(
            warning("size", f"{size}; platforms may refuse more than {size_text(LARGE_BYTES)}")
        )
    if options.dry_run_s is not None:
        solution.dry_run = dry_run(archive, options.dry_run_s)
    return solution


def _check(folder: Path, files: Sequence[BundleFile], findings: list[Finding]) -> bool:
    """Add what is wrong to `findings`; whether the bundle imports autometa."""
    trees, broken = parse(files)
    findings += broken
    if MODEL_FILE in trees:
        findings += check_classes(trees[MODEL_FILE])
    imports = find_imports(trees, files)
    findings += check_imports(imports)
    try:
        read_config(folder)
    except InputError as problem:
        findings.append(error("config.json", str(problem)))
    if not fails(findings):
        findings += probe(folder)
    return any(each.module == "autometa" for each in imports)


def _metadata(files: Sequence[BundleFile], findings: list[Finding]) -> list[tuple[str, Content]]:
    """The file that makes it a code submission, where it is missing."""
    found = [file for file in files if file.name in METADATA_FILES]
    for file in found:
        lines = file.path.read_text(encoding="utf-8", errors="replace").splitlines()
        if any(line.startswith("command") for line in lines):
            findings.append(
                warning(file.name, "has a command, so a platform runs the bundle by itself; remove the line")
            )
    if found:
        return []
    findings.append(
        warning("metadata", "is missing, so it was added: platforms take the files for predictions else")
    )
    return [("metadata", METADATA)]


def _carried(options: Options, files: Sequence[BundleFile], scratch: Path) -> list[tuple[str, Content]]:
    """autometa, what it needs and the weights; BundleError where the bundle has files of these names."""
    for file in files:
        if file.name.startswith(OWN_NAMES):
            raise BundleError(
                f"{file.name}: autometa comes along under this name; rename it, or --without-autometa"
            )
    backbones = choose_backbones(options.backbones) if options.weights else ()
    return [
        *autometa_contents(),
        *(vendor_contents() if options.vendor else ()),
        *weights_contents(backbones, scratch),
        ("CARRIED.md", readme(backbones, vendor=options.vendor)),
    ]


def lines_of(solution: Solution) -> Iterator[str]:
    """The outcome for people."""
    yield from map(str, solution.findings)
    if solution.archive is None:
        yield f"{solution.bundle}: not packed"
        return
    carries = f", with {', '.join(solution.carries)}" if solution.carries else ""
    yield f"{solution.archive}: {size_text(solution.size_bytes)}, {solution.files} files{carries}"
    if (tried := solution.dry_run) is None:
        return
    if tried.succeeded:
        yield (
            f"dry run: all {tried.tasks} tasks answered in {tried.seconds:.0f} s, normalized accuracy "
            f"{100 * (tried.score or 0.0):.0f} %"
        )
        return
    yield from (f"  | {line}" for line in tried.lines)
    for task, reason in list(tried.failures.items())[:5]:
        yield f"dry run: task {task}: {reason}"
    yield f"dry run: {len(tried.failures)} of {tried.tasks} tasks failed"
