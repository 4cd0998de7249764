"""The bundled web service: three read endpoints, a fault injection endpoint, exact metrics."""
