"""A language model behind HTTP as teacher: what it is asked, how, and what is made of its answers."""
