"""Containers in MedPerf's customary style that know nothing of Housecall: bright spots on slides.

A preparation in shell, a model with one entry script and flags, an evaluator in awk.
"""
