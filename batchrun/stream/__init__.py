"""From bytes to an answer: events of a stream, their fold, and what continues a broken one."""
