"""Repair what crashes leave behind: the sweep."""
