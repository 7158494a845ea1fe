"""From the machine's facts to a process that serves."""
