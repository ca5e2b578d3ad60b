"""HTTP over snapshots, a store reader and a mailbox; never over a stage of the pipeline."""

from gradwatch_daemon.api.app import create_api
from gradwatch_daemon.api.context import ApiContext, DaemonHealth, DetectorInfo, NeedInfo, ThresholdInfo, VoteInfo
from gradwatch_daemon.api.hub import Hub

__all__ = ["ApiContext", "DaemonHealth", "DetectorInfo", "Hub", "NeedInfo", "ThresholdInfo", "VoteInfo", "create_api"]
