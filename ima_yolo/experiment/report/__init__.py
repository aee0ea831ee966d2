"""The report of a study: tables, curves, kinds of error, pictures, and how to run it again."""
