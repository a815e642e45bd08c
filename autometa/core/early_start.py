"""Importing this starts the GPU of a submission's process while it imports the rest, or stands by for meta-test.

Outside of ingestion nothing happens. A GPU takes seconds to start, and so do the imports of a submission.
"""

from __future__ import annotations

import os

from autometa.core.machine import warm_up_in_background

if "METADL_TEST_SPEC" in os.environ:
    warm_up_in_background()
