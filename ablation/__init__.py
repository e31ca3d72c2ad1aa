"""Studies: arms × budgets × seeds of ordinary runs, what they come to, and the page that says it.

study: what is asked for. plan: the cells it takes. corpora: the same text for all. running: who
does which cell. measure, speed: what is measured of a cell. results, analysis: what they come to.
tables, page: how it is shown.
"""
