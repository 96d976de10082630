"""Measures the service: beside other servers, under overload, faults, upgrades and damaged images, and for long."""
