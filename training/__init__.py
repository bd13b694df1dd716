"""Offline training: from data files to an artifact. Imports neither service nor model_export."""
