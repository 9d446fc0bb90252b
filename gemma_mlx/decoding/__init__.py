"""How text comes out of the network: prefill, sampling, generation, and the session that keeps the caches."""
