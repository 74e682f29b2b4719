"""Names that TrainingArguments accepts and libraries try only much later: optimizer, schedule, reporters."""

import os
from collections.abc import Mapping
from copy import copy
from importlib.util import find_spec
from typing import Any

import torch
from transformers import Trainer, TrainingArguments
from transformers.optimization import get_scheduler

from heed.errors import UserError, reason_of

# What libraries raise when a name or its options do not work here.
CANNOT = (ImportError, ValueError, TypeError, RuntimeError, AttributeError, KeyError, AssertionError, OSError)
# They change weights within the backward pass: before the gradient is clipped, accumulated, or known to be finite.
WITHIN_BACKWARD = ("lomo", "adalomo")
# Schedules that take no options, and those that begin at the full learning rate whatever warmup_steps says.
WITHOUT_OPTIONS = ("constant", "constant_with_warmup")
WITHOUT_WARMUP = ("constant", "reduce_lr_on_plateau", "greedy")
# What a reporter needs where it is not just a package of its own name.
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "azure_ml": ("azureml",),
    "dagshub": ("dagshub", "mlflow"),
    "flyte": ("flytekit",),
    "kubeflow": (),
}
VARIABLES: Mapping[str, str] = {"kubeflow": "KUBEFLOW_TRAINER_SERVER_URL"}
USUAL_STEPS = 1000  # of a schedule that is tried before the number of steps is known


def try_choices(args: TrainingArguments) -> None:
    """Raises UserError for an optimizer, schedule or reporter that would fail once the model is loaded."""
    optimizer = try_optimizer(args)
    try_schedule(args, optimizer)
    for name in args.report_to or ():
        check_reporter(name)


def try_optimizer(args: TrainingArguments) -> torch.optim.Optimizer:
    """Take one step on a layer of 4,096 weights: the fewest that 8-bit optimizers store in 8 bits."""
    name = value_of(args.optim)
    if name in WITHIN_BACKWARD or name.endswith("_layerwise"):
        raise UserError(
            f"optim: {name} changes weights within the backward pass, before their gradient is clipped and known to be "
            "finite; choose another, such as adamw_torch"
        )
    layer: Any = torch.nn.Sequential(torch.nn.Linear(64, 64)).to(args.device)
    try:
        kind, options = optimizer_of(args, layer)
        without_options = optimizer_of(copied(args, optim_args=None), layer)
        optimizer: torch.optim.Optimizer = kind(options.pop("params", None) or layer.parameters(), **options)
        layer(torch.ones(2, 64, device=args.device)).sum().backward()
        optimizer.step()
    except CANNOT as error:
        raise UserError(f"optim: {name} does not work here: {reason_of(error)}") from error
    if args.optim_args and (kind, options) == without_options:
        raise UserError(f"optim_args has no effect with optim: {name}; leave it out")
    return optimizer


def optimizer_of(args: TrainingArguments, layer: Any) -> tuple[Any, dict[str, Any]]:
    if args.optim_target_modules is not None:  # the names are those of a model that is not there yet
        args = copied(args, optim_target_modules="all-linear")
    found: tuple[Any, dict[str, Any]] = Trainer.get_optimizer_cls_and_kwargs(args, layer)
    return found


def copied(args: TrainingArguments, **changes: Any) -> TrainingArguments:
    args = copy(args)
    for name, value in changes.items():
        setattr(args, name, value)
    return args


def try_schedule(args: TrainingArguments, optimizer: torch.optim.Optimizer) -> None:
    name = value_of(args.lr_scheduler_type)
    if name in WITHOUT_OPTIONS and args.lr_scheduler_kwargs:
        raise UserError(f"lr_scheduler_kwargs has no effect with lr_scheduler_type: {name}; leave it out")
    if name in WITHOUT_WARMUP and args.warmup_steps:
        instead = "constant_with_warmup" if name == "constant" else "linear"
        raise UserError(
            f"warmup_steps has no effect with lr_scheduler_type: {name}; leave it out, or choose another, such as "
            f"{instead}"
        )
    steps = args.max_steps if args.max_steps > 0 else USUAL_STEPS
    options: Any = args.lr_scheduler_kwargs or {}
    try:
        get_scheduler(
            args.lr_scheduler_type,
            optimizer,
            num_warmup_steps=args.get_warmup_steps(steps),
            num_training_steps=steps,
            scheduler_specific_kwargs=dict(options),
        )
    except CANNOT as error:
        raise UserError(f"lr_scheduler_type: {name} needs other lr_scheduler_kwargs: {reason_of(error)}") from error


def check_reporter(name: str) -> None:
    """Look for its package only: some reporters' callbacks contact a server as soon as they are made."""
    for package in PACKAGES.get(name, (name,)):
        if find_spec(package) is None:
            raise UserError(
                f"report_to: {name} needs {package}, which is not installed; `.venv/bin/pip install {package}`"
            )
    variable = VARIABLES.get(name)
    if variable and variable not in os.environ:
        raise UserError(f"report_to: {name} needs the environment variable {variable}, which its own jobs set")


def value_of(choice: Any) -> str:
    return str(getattr(choice, "value", choice))
