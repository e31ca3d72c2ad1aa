"""Why numbers of a study are to be doubted, in sentences that name arms and cells."""
def warnings(found): return []
