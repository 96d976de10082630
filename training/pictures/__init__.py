"""Pictures of a run and of its network: the report, plots, Grad-CAM.

report.py, report_template.html -> one page that shows how good a model is
figures.py, drawing.py -> the plots of the report
visualize.py -> filters, feature maps, Grad-CAM and augmentation of a run
layers.py, feature_maps.py, grad_cam.py -> what happens inside a network

May import `evaluation` and everything below it.
"""
