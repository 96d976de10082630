"""Fitting: the training loop and what it needs.

accelerator.py -> the device, the precision and the processes of a run
seeding.py -> random draws that are the same at every run
trainer.py -> the loop
stages.py -> which layers learn in an epoch, and from what
optim.py, schedules.py -> the loss, the optimiser, the averaged weights, the learning rate
resume.py -> saves what changes while a run trains, and puts it back
find_lr.py -> measures which learning rate to train with

May import `export` and everything below it.
"""
