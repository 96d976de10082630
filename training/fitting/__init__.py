"""The training loop and what it needs.

trainer.py -> the loop
stages.py -> which layers learn, and when
optim.py, schedules.py -> the optimiser, the loss, the learning rate
accelerator.py -> the device and the processes
seeding.py -> the same numbers at every run
find_lr.py -> finds a learning rate

May import `export` and everything below it.
"""
