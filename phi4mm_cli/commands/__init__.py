"""One file per subcommand: its prompt, its flow, its options."""
