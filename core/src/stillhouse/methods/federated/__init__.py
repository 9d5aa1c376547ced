"""Clients that keep their rows: who has which (`parts`), what travels (`messages`), what a client does with it
(`client`) and the server (`server`), what carries it (`engines`), and what may be learned of a row (`privacy`)."""
