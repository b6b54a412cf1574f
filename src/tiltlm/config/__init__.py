"""Every setting: its type, default, help, range and effect."""

from tiltlm.config.sections import (
    ComparisonConfig,
    Config,
    DataConfig,
    Format,
    HubConfig,
    LossConfig,
    ModelConfig,
    Precision,
    RunConfig,
    SaveDtype,
    TrainingConfig,
    config_from_dict,
    load_config,
    option_names,
    option_types,
)

__all__ = [
    "ComparisonConfig",
    "Config",
    "DataConfig",
    "Format",
    "HubConfig",
    "LossConfig",
    "ModelConfig",
    "Precision",
    "RunConfig",
    "SaveDtype",
    "TrainingConfig",
    "config_from_dict",
    "load_config",
    "option_names",
    "option_types",
]
