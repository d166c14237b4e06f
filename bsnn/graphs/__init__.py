"""One plain description of networks of every kind, what reads torch modules into it, and what runs it."""
