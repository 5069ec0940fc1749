"""The command line: one file per verb, thin over the library. What a verb needs is imported when it runs."""
