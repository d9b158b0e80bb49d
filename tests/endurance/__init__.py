"""Endurance: hours of load with kills and failing receivers, run by `make soak`; acceptance tests have a short one."""
