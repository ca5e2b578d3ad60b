"""What `gradwatch run` tells the process that it becomes, by its environment."""

from __future__ import annotations

PATCHES: dict[str, str] = {
    "gradients": "clip_grad_norm_ and optimizer steps",
    "scalars": "SummaryWriter.add_scalar",
    "entropies": "entropy() of torch.distributions",
    "exceptions": "sys.excepthook",
}
"""What a script that says nothing by itself is watched through: name for `--no-patch` → what is looked into."""

ENV_PATCHES = "GRADWATCH_RUN_PATCHES"
"""Names of PATCHES with commas between them; nothing is looked into where it is not set."""

ENV_EVERY = "GRADWATCH_RUN_EVERY"
"""Optimizer steps that make an update of a script which logs no global_step."""

EVERY = 100
STARTUP_FOLDER = "startup"
"""Folder of the agent that is put on PYTHONPATH: it holds a `sitecustomize`, which Python imports before the script."""
