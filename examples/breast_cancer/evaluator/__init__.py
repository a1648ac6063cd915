"""The evaluator container: predictions and labels in, metrics with confidence intervals out."""
