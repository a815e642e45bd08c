"""Few-shot classification in Python: an estimator with the conventions of scikit-learn."""
