"""pytest-benchmark suites, each thing of the engine beside its equivalent in a library:

pytest bench/suites --benchmark-only [--benchmark-autosave | --benchmark-compare]
"""
