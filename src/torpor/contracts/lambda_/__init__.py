"""The AWS Lambda contract, standard and managed: its numbers, names, messages and translations."""
