"""Tests of the local builder."""
