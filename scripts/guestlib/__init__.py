# SPDX-License-Identifier: MIT
"""Builds the guest that demo, tests and benchmarks boot: see scripts/guest-fetch."""
