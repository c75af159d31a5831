"""Bridges to what a service runs already: traces, circuit breakers, logs. Each module is imported by itself."""
