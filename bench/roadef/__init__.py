"""The ROADEF/EURO 2012 machine reassignment challenge: reader, kernel, search."""
