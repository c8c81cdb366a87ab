"""The build engine: jobs, logs, streams and builders, without Home Assistant.

Nothing below this package imports Home Assistant, so all of it can be run and tested
with plain asyncio.
"""
