"""Alerts that people trust: a monitor that groups deaths by their cause, and the channels it tells."""
