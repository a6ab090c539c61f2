"""Modules that register chains, as an application's would: workers under test import them."""
