"""What commands do with their inputs, as flows that know neither a command line nor where results are written."""
