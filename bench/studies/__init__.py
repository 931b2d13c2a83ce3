"""Hold measurements that are programs of their own: python -m rbc_engine.bench.studies.NAME."""
