"""Tests of the operators' port: pages, API, metrics, who may."""
