"""HTTP over snapshots, a store reader and a mailbox; never over a stage of the pipeline."""

from gradwatch_daemon.api.app import create_api
from gradwatch_daemon.api.context import ApiContext, DetectorInfo, NeedInfo, ThresholdInfo
from gradwatch_daemon.api.hub import Hub

__all__ = ["ApiContext", "DetectorInfo", "Hub", "NeedInfo", "ThresholdInfo", "create_api"]
