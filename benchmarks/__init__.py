"""What is measured, and how: ``python -m benchmarks.NAME``; results of a run stand in docs/performance.md."""
