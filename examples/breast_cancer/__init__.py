"""The demo benchmark: tell malignant from benign in 569 real fine-needle aspirates of the breast.

Data: Breast Cancer Wisconsin (Diagnostic), W. H. Wolberg, W. N. Street and O. L. Mangasarian, 1995,
as shipped with scikit-learn.
"""
