"""Vectors of texts and questions, by a model on this machine or an endpoint: texts that mean the same lie near."""
