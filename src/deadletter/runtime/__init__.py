"""What differs from run to run: chance, threads, event loops. Everything here can be put under a seed."""
