"""Compare each part of the engine with its equivalent in a library, as pytest-benchmark suites:

pytest bench/suites --benchmark-only [--benchmark-autosave | --benchmark-compare]
"""
