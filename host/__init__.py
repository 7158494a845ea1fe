"""What is there before anything is declared: the Docker host, its containers, whose they are. Reads only."""
