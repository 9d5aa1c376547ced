"""Where work is made side by side: in processes of this machine, or on Ray. One interface, `Engine`."""

from stillhouse.engines.base import ENGINES, Engine, Event, make_engine

__all__ = ["ENGINES", "Engine", "Event", "make_engine"]
