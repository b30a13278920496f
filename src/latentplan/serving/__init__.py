"""The server: models behind OpenAI's HTTP interface, with requests gathered into running batches."""
