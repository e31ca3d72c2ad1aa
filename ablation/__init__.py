"""Studies: arms × budgets × seeds of ordinary runs, what they come to, and the page that says it.

study: what is asked for. plan: the cells it takes. corpora: the same text for all. place, claims,
running: who does which cell, and where. measure, speed: what is measured of a cell. results: what
is there of each. bootstrap, analysis, doubts, verdict: what they come to, and whether to believe
it. tables, page, showing: how it is shown.
"""
