"""HTTP as this product speaks it: the server and its limits, reading bodies and parameters, writing responses."""
