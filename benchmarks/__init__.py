"""What Penstock costs, beside what the machine could do: `make bench`."""
