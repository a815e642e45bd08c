"""The pages of a competition, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

OVERVIEW = """# {title}

Write a program that learns to classify images from a few examples. It is given images of many classes, with labels
(*meta-training*). Then it meets tasks: some labelled images of 2 or more new classes (*support*), and images of these
classes to classify (*queries*).

A submission is a zip file with a `model.py` at its root that defines `MyMetaLearner` and `MyLearner`; the starting
kit has examples and says how to try them. It has {minutes} minutes for everything: start, meta-training, and {tasks}
tasks of {datasets} dataset(s). It is stopped then, and what it has not answered counts as chance.

Submissions get the labels of no query. What a submission prints is in the log.
"""
EVALUATION = """# Evaluation

The score is *normalized accuracy*, averaged over all tasks: 0 is chance, 1 is perfect, whatever the number of
classes. A task of N classes with a balanced accuracy (mean recall) of b has (b - 1/N) / (1 - 1/N). A task that was
not answered, or whose answer has a wrong form, scores 0.

| column | meaning |
|---|---|
| `normalized_accuracy` | the score that ranks |
| `normalized_accuracy_ci95` | half of its 95 % interval over tasks |
{rows}| `tasks_missing` | tasks without a usable answer |
| `duration_s` | seconds that the submission took |

Tasks have {ways} classes, {shots} labelled images of each, and {queries} queries of each class. The second phase has
other tasks of the same kind.
"""
TERMS = """# Terms

- Submissions must be programs of their authors, or be used as their licences allow.
- A submission must not try to read labels of queries, nor files that are not its own.
- Random numbers must be seeded, so that a run can be repeated.
- Images may only be used for this competition, unless their own licence says otherwise.
"""
DATA = """# Data

| dataset | meta-training | meta-test |
|---|---|---|
{rows}

Images are resized to {px} x {px} pixels. The images of a test class are dealt into two halves, one for supports and
one for queries: no image is shown with a label in one task and asked in another.
"""
KIT = """# Starting kit

`bundles/` holds submissions; `ingestion/` and `scoring/` are the programs of this competition. To try a submission on
data of your own (a folder with a subfolder of images per class):

    pip install {packages}
    python -m ingestion --input_data_dir=DATA --submission_dir=bundles/random --output_dir_ingestion=run \\
        --time_budget_s={seconds} --query_images_per_class=5
    python -m scoring --results_dir=run --output_dir_scoring=scores

To submit, zip the *files* of the folder, with no folder around them: `cd bundles/random && zip -r ../random.zip .`
`autometa bundle bundles/random -o random.zip` does that and checks them.
"""
DOCKERFILE = """# The image of both programs of this competition, and of what submissions find installed.
# Build and push it:  docker build -t NAME . && docker push NAME
FROM python:3.11-slim
RUN apt-get update \\
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 libgomp1 \\
    && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir \\
{packages}
ENV PYTHONUNBUFFERED=1
WORKDIR /app
"""


def evaluation_page(datasets: Sequence[str], ways: str, shots: str, queries: int) -> str:
    """What is measured, with a row for each dataset."""
    rows = "".join(f"| `dataset_{i}` | the score on {name} |\n" for i, name in enumerate(datasets, start=1))
    return EVALUATION.format(rows=rows, ways=ways, shots=shots, queries=queries)


def data_page(rows: Sequence[tuple[str, str, str]], px: int) -> str:
    """The datasets: name, classes to learn from, classes of the test."""
    return DATA.format(rows="\n".join(f"| {' | '.join(row)} |" for row in rows), px=px)


def dockerfile(packages: Sequence[str]) -> str:
    """The recipe of the image, with one package a line."""
    return DOCKERFILE.format(packages=" \\\n".join(f"    {package}" for package in packages))
