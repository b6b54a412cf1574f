"""The trackers that a run's rows can be sent to: their names, and what must be installed for each."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Strict

from tiltlm.config.suggestions import nearest

TRACKERS: dict[str, tuple[str, ...]] = {
    "trackio": ("trackio",),
    "wandb": ("wandb",),
    "tensorboard": ("tensorboardX",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "swanlab": ("swanlab",),
}
"""The packages of each, which the extra of its name brings: `pip install "tiltlm[wandb]"`."""


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names themselves.

    Raises:
        ValueError: there is no tracker of such a name, or one is named twice.
    """
    for place, name in enumerate(names):
        if name not in TRACKERS:
            near = nearest(name, list(TRACKERS))
            hint = f"Did you mean `{near}`?" if near else f"There are: {', '.join(TRACKERS)}."
            raise ValueError(f"knows no tracker `{name}`. {hint}")
        if name in names[:place]:
            raise ValueError(f"names `{name}` twice.")
    return names


TrackerNames = Annotated[tuple[str, ...], AfterValidator(_known), Strict(False)]
