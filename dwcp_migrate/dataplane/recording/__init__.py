"""Recordings of migration streams, and their replay through parser, encoder and decoder."""
