"""What people run: the client, the command, and what they share. No Pulumi in it."""
