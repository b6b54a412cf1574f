"""Every setting: its type, default, help, range and effect."""

from tiltlm.config.adapter_config import AdapterConfig
from tiltlm.config.data_sources import Format, SourceConfig
from tiltlm.config.distributed_config import DistributedConfig
from tiltlm.config.loss_config import LossConfig
from tiltlm.config.rounds_config import RoundsConfig
from tiltlm.config.sections import (
    CheckpointConfig,
    ComparisonConfig,
    Config,
    DataConfig,
    HubConfig,
    ModelConfig,
    Precision,
    RunConfig,
    SaveDtype,
    TrainingConfig,
)
from tiltlm.config.tables import config_from_dict, load_config, option_names, option_types, settings_table

__all__ = [
    "AdapterConfig",
    "CheckpointConfig",
    "ComparisonConfig",
    "Config",
    "DataConfig",
    "DistributedConfig",
    "Format",
    "HubConfig",
    "LossConfig",
    "ModelConfig",
    "Precision",
    "RoundsConfig",
    "RunConfig",
    "SaveDtype",
    "SourceConfig",
    "TrainingConfig",
    "config_from_dict",
    "load_config",
    "option_names",
    "option_types",
    "settings_table",
]
