"""Pictures of a run and of its network: the report, plots, Grad-CAM.

report.py, report_template.html -> the report: one page that shows how good a model is
figures.py -> the plots of the report
visualize.py -> figures of filters, feature maps, Grad-CAM and augmentation
layers.py -> the output of each layer of a network
feature_maps.py -> the first filters, and what they find in an image
grad_cam.py -> which parts of an image speak for a class
drawing.py -> the style of all figures; PNG and SVG

May import `evaluation` and everything below it.
"""
