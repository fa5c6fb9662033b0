"""Volumes: directories that outlive the containers that write to them, some of a limited size."""
