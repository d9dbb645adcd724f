"""The agent's configuration: one typed TOML file, and one validation for everyone who reads it.

Nothing reads the file at import.

Modules:
    addresses: spellings of addresses and host names
    choices: settings of one migration, by its domain and its peer
    compare: differences of two configurations, key by key; keys that wait for a restart
    model: the keys, their types and defaults
    places: lines of the keys in the file
    quantities: sizes, rates and times with units
    reading: reader of the file
    rules: rules that types cannot express
    shape: types of the keys, their allowed values, the nearest known key
"""

from dwcp_migrate.config.model import (
    DEFAULT_PATH,
    BandwidthConfig,
    Config,
    CoordinationConfig,
    DomainConfig,
    EncodingConfig,
    EtcdConfig,
    InterceptConfig,
    LinkConfig,
    MetricsConfig,
    MigrationPolicy,
    PbftConfig,
    PbftMemberConfig,
    PeerConfig,
    PlacementConfig,
    RateHours,
    RecordConfig,
    StoreConfig,
    StoreScopeConfig,
    TlsConfig,
    same_name,
)
from dwcp_migrate.config.reading import load, parse

__all__ = [
    "DEFAULT_PATH",
    "BandwidthConfig",
    "Config",
    "CoordinationConfig",
    "DomainConfig",
    "EncodingConfig",
    "EtcdConfig",
    "InterceptConfig",
    "LinkConfig",
    "MetricsConfig",
    "MigrationPolicy",
    "PbftConfig",
    "PbftMemberConfig",
    "PeerConfig",
    "PlacementConfig",
    "RateHours",
    "RecordConfig",
    "StoreConfig",
    "StoreScopeConfig",
    "TlsConfig",
    "load",
    "parse",
    "same_name",
]
