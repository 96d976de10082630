"""The training loop, written to be read from top to bottom.

Trainer.fit: for each epoch: for each step: zero gradients, forward, loss, backward, step -> validate -> checkpoints

Several processes (`accelerate launch`, `torchrun`) share each batch. Gradients and metrics are averaged over them, and
only the main process writes files.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from training.config.settings import TrainConfig
from training.data.augment import mixing
from training.data.pixel_store import epoch_order
from training.data.prepared import PreparedData
from training.fitting.accelerator import choose_statistics
from training.fitting.optim import make_average, make_loss, make_optimiser
from training.fitting.resume import TrainingState, cut_logs
from training.fitting.schedules import LearningRateSchedule
from training.fitting.seeding import seed_everything, seed_step
from training.fitting.stages import Stage, Stages
from training.networks.build import build_model
from training.networks.transfer import head_of, set_training_mode
from training.runs.checkpoint import Progress, append_log
from training.runs.progress import Advance, Reporter
from training.runs.run_folder import RunFolder
from training.runs.step_log import StepLog
from training.runs.tracking import Tracker

_EVALUATION_BATCH = 256

OnEpoch = Callable[[dict[str, Any]], None]
"""A function that takes the metrics of an epoch, by name."""


class Trainer:
    """Trains the network of one run, and keeps its best weights.

    Args:
        config: the configuration of the run.
        run: the folder of the run. Training goes on from the checkpoint in it, if there is one.
        data: the images of the run, as `prepare_data` returns them.
        accelerator: the device and the processes, as `make_accelerator` returns them.
        reporter: shows a person how far the run is.
        tracker: logs the metrics of each epoch.

    Raises:
        ConfigError: the architecture does not fit the other settings.
        DataError: the pretrained weights cannot be downloaded.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: RunFolder,
        data: PreparedData,
        accelerator: Accelerator,
        reporter: Reporter,
        tracker: Tracker,
    ) -> None:
        self.config, self.run, self.accelerator = config, run, accelerator
        self.reporter, self.tracker = reporter, tracker
        self.class_names = data.class_names
        class_count = len(data.class_names)
        seed_everything(config.seed)
        self.model = build_model(config, class_count)  # before any pixel is decoded: a mistake is told at once
        training, validation = data.training_store(), data.validation_store()
        self.statistics = choose_statistics(config, data, training)
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.model.to(device=accelerator.device, memory_format=layout)  # type: ignore[call-overload]
        self.stages = Stages(config, self.model, training, validation, self.statistics, reporter)
        self.loss_function = make_loss(config, training.labels, class_count).to(accelerator.device)
        self.mix = mixing(config, class_count)
        self.image_count = len(training)
        self.optimiser = accelerator.prepare_optimizer(make_optimiser(config, self.model))
        self.schedule = LearningRateSchedule(self.optimiser.optimizer, config, len(self.batch_order(0)))
        self.average = make_average(self.model, config.ema_decay) if config.ema_decay else None
        self.progress = Progress()
        self.state = TrainingState(
            progress=self.progress,
            model=self.model,
            optimiser=self.optimiser,
            schedule=self.schedule,
            average=self.average,
            scaler=accelerator.scaler,
        )
        self.step_log = StepLog(run.steps_file if accelerator.is_main_process else None, self.progress)
        self._network: nn.Module = self.model
        self._trainable: tuple[int, int | None] | None = None

    def fit(self, on_epoch: OnEpoch | None = None) -> None:
        """Trains until the last epoch, or until early stopping.

        Args:
            on_epoch: called after each epoch, on every process. What it raises ends the training.

        Raises:
            DivergedError: the loss became infinite or not a number.
            RunError: a file of the run cannot be written; the last checkpoint is intact.
        """
        progress = self.progress
        self._begin_or_resume()
        stage: Stage | None = None
        while progress.epoch < self.config.epochs and not progress.stopped_early:
            stage, network = self.stage_for_epoch(progress.epoch, stage)
            started, images_before = time.perf_counter(), progress.running[2]
            self.train_epoch(stage, network)
            seconds = time.perf_counter() - started
            train_loss, train_accuracy, image_count = self._mean_over_processes(progress.running)
            val_loss, val_accuracy = self.validate(stage)
            metrics = {
                "epoch": progress.epoch + 1,
                "train_loss": train_loss,
                "train_accuracy": train_accuracy,
                "val_loss": val_loss,
                "val_accuracy": val_accuracy,
                "learning_rate": self._learning_rate(),
                "images_per_s": (image_count - images_before) / seconds,
                "seconds": seconds,
            }
            self.schedule.after_epoch(val_loss)
            self._end_epoch(metrics)
            if on_epoch is not None:
                on_epoch(metrics)

    def _begin_or_resume(self) -> None:
        """Goes on from the checkpoint of the run; a run that has none writes its first."""
        resumed = self.run.last_checkpoint.is_file()
        self.accelerator.wait_for_everyone()  # all have looked before the main one writes the first
        if resumed:
            self.state.resume(self.run)
            self.reporter.line(f"Resumed at epoch {self.progress.epoch + 1}, step {self.progress.step + 1}.")
        if self.accelerator.is_main_process:
            cut_logs(self.run, self.progress)
            if not resumed:
                self.state.save(self.run)

    def train_epoch(self, stage: Stage, network: nn.Module) -> None:
        """Trains the steps of an epoch that are left, and adds them to the sums in `progress.running`.

        Args:
            stage: the stage of the epoch.
            network: the network of the stage, as `stage_for_epoch` returns it.
        """
        config, progress, device = self.config, self.progress, self.accelerator.device
        order = self.batch_order(progress.epoch)[progress.step :]
        batches = stage.training.batches(order, workers=config.workers, pin_memory=device.type == "cuda")
        set_training_mode(self.model)
        with self.reporter.track(f"Epoch {progress.epoch + 1} of {config.epochs}", len(order)) as advance:
            for images, labels in batches:
                seed_step(config.seed, progress.epoch, progress.step, self.accelerator.process_index)
                inputs = stage.vary(images.to(device, non_blocking=True))  # (B, C, S, S), or (B, F) of features
                labels = labels.to(device, non_blocking=True)  # (B,)
                targets = labels
                if self.mix is not None:
                    inputs, targets = self.mix(inputs, labels)

                self.optimiser.zero_grad()
                with self.accelerator.autocast():
                    logits = network(inputs)  # (B, classes)
                    loss = self.loss_function(logits, targets)
                self.accelerator.backward(loss)
                if config.gradient_clip:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), config.gradient_clip)
                self.optimiser.step()
                if self.average is not None:
                    self.average.update_parameters(self.model)

                self._end_step(loss.detach(), (logits.detach().argmax(1) == labels).sum(), len(labels), advance)
        self.step_log.flush()

    def _end_step(self, loss: torch.Tensor, correct: torch.Tensor, image_count: int, advance: Advance) -> None:
        """Logs a step, moves the schedule and the progress, and writes the checkpoint when it is due."""
        config, progress = self.config, self.progress
        self.step_log.add(loss, correct, image_count, self._learning_rate())
        self.schedule.after_step()
        progress.step += 1
        progress.global_step += 1
        note = f"loss {self.step_log.flush():.3f}" if self.step_log.is_full else ""
        advance(image_count * self.accelerator.num_processes, note)
        if config.checkpoint_every_steps and progress.global_step % config.checkpoint_every_steps == 0:
            self.step_log.flush()
            if self.accelerator.is_main_process:
                self.state.save(self.run)

    @torch.no_grad()
    def validate(self, stage: Stage) -> tuple[float, float]:
        """Returns the mean loss and the accuracy on the validation split. Each process takes a part of it."""
        device = self.accelerator.device
        evaluated = self.state.evaluated_model.eval()
        if self.accelerator.num_processes > 1:
            for buffer in evaluated.buffers():  # batch normalisation's statistics are each process's own
                torch.distributed.broadcast(buffer, src=0)
        network = evaluated if stage.from_pixels else head_of(evaluated)[1]
        positions = torch.arange(len(stage.validation.labels))
        mine = positions[self.accelerator.process_index :: self.accelerator.num_processes]
        sums = [0.0, 0.0, 0.0]
        order = list(torch.split(mine, _EVALUATION_BATCH)) if len(mine) else []
        for images, labels in stage.validation.batches(order, workers=self.config.workers):
            with self.accelerator.autocast():
                logits = network(stage.prepare(images.to(device)))
            labels = labels.to(device)
            loss = nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
            sums = [sums[0] + float(loss), sums[1] + int((logits.argmax(1) == labels).sum()), sums[2] + len(labels)]
        loss_mean, accuracy, _ = self._mean_over_processes((sums[0], sums[1], sums[2]))
        return loss_mean, accuracy

    def _end_epoch(self, metrics: dict[str, Any]) -> None:
        """Compares an epoch with the best one, writes the checkpoints, and decides whether to stop early."""
        config, progress = self.config, self.progress
        loss, accuracy = metrics["val_loss"], metrics["val_accuracy"]
        score = (accuracy, -loss) if config.monitor == "val_accuracy" else (-loss, accuracy)
        best = score > progress.best_score
        progress.epochs_without_gain = 0 if best else progress.epochs_without_gain + 1
        if best:
            progress.best_score, progress.best_epoch = score, progress.epoch
        patience = config.early_stopping_patience
        progress.stopped_early = bool(patience) and progress.epochs_without_gain >= patience
        progress.epoch += 1
        progress.step = 0
        progress.running = (0.0, 0.0, 0.0)
        if self.accelerator.is_main_process:
            append_log(self.run.history_file, [metrics])
            if best:
                self.state.save_best(self.run, self.class_names, self.statistics, metrics)
            self.state.save(self.run)
        self.tracker.log_metrics({name: value for name, value in metrics.items() if name != "epoch"}, metrics["epoch"])
        self.reporter.line(
            f"Epoch {metrics['epoch']:>3} of {config.epochs}  "
            f"train loss {metrics['train_loss']:.4f} accuracy {metrics['train_accuracy']:.4f}  "
            f"val loss {loss:.4f} accuracy {accuracy:.4f}  lr {metrics['learning_rate']:.2g}  "
            f"{metrics['images_per_s']:.0f} images/s{'  best' if best else ''}"
        )
        if progress.stopped_early:
            self.reporter.line(f"Stopped early: {config.monitor} has not improved for {patience} epochs.")

    def stage_for_epoch(self, epoch: int, before: Stage | None) -> tuple[Stage, nn.Module]:
        """Returns the stage of an epoch, and its network: compiled and shared among processes as configured.

        Args:
            epoch: the number of the epoch, from 0.
            before: the stage of the epoch before; None in the first epoch of this process.
        """
        stage = self.stages.for_epoch(epoch)
        trainable = (id(stage.network), self.stages.trainable_stages(epoch))
        if before is None or trainable != self._trainable:
            # Prepared again when layers freeze or thaw: DistributedDataParallel decides once which gradients it awaits.
            self.accelerator.unwrap_model(stage.network, keep_fp32_wrapper=False)
            network: nn.Module = torch.compile(stage.network) if self.config.compile else stage.network  # type: ignore[assignment]
            self._network = self.accelerator.prepare_model(network)
            self._trainable = trainable
        return stage, self._network

    def batch_order(self, epoch: int) -> list[torch.Tensor]:
        """Returns the positions of the images of each batch that this process takes in an epoch, from 0."""
        return epoch_order(
            self.image_count,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            epoch=epoch,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
        )

    def _mean_over_processes(self, sums: tuple[float, float, float]) -> tuple[float, float, float]:
        """Returns mean loss, accuracy and image count over all processes, from the sums of this one."""
        local = torch.tensor(sums, dtype=torch.float32 if self.accelerator.device.type == "mps" else torch.float64)
        loss, correct, count = self.accelerator.reduce(local.to(self.accelerator.device), reduction="sum").tolist()
        return loss / count, correct / count, count

    def _learning_rate(self) -> float:
        return float(max(group["lr"] for group in self.optimiser.param_groups))
