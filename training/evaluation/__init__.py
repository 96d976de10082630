"""Measures how good a model is: metrics, calibration, the test at the end of a run.

baseline.py -> what a run has to beat: guessing, and the network before training
evaluate.py -> a run's model on the validation and test images
published.py -> a published model on a folder of images
metrics.py, intervals.py -> accuracy and other figures, with their uncertainty
calibration.py -> the temperature that makes probabilities honest
summary.py -> the result in a few lines

May import `export` and everything below it.
"""
