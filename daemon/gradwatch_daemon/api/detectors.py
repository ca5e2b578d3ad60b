"""The catalogue: what this daemon looks for, with which numbers, and what each detector needs."""

from dataclasses import asdict

from fastapi import APIRouter, Request

from gradwatch_daemon.api import service_models as models
from gradwatch_daemon.api.context import DetectorInfo, context_of
from gradwatch_daemon.api.numbers import Answer, number

router = APIRouter(tags=["detectors"])


def detector_item(info: DetectorInfo) -> models.DetectorItem:
    """One entry of the catalogue."""
    fields = asdict(info)
    fields["try"] = fields.pop("tries")
    for threshold in fields["thresholds"]:
        threshold.update(value=number(threshold["value"]), default=number(threshold["default"]))
        threshold["signal"] = threshold["signal"] or None
        threshold["severity"] = threshold["severity"].value if threshold["severity"] else None
    fields["votes"] = [{"at": vote.at.value, "k": vote.k, "n": vote.n, "gives": vote.gives.value} for vote in info.votes]
    return models.DetectorItem.model_validate({**fields, "severity": info.severity.value})


@router.get("/detectors", response_model=models.DetectorList, operation_id="list_detectors", summary="The catalogue")
async def list_detectors(request: Request) -> Answer:
    """Every anomaly kind of the profile in use, with the thresholds in force."""
    context = context_of(request)
    broken = [models.BrokenDetectorItem.model_validate(asdict(one)) for one in context.broken]
    items = [detector_item(info) for info in context.catalogue]
    return Answer(models.DetectorList(items=items, next=None, profile=context.profile, broken=broken).model_dump(by_alias=True))
