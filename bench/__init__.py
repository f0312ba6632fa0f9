"""CPU microseconds per request, next to what a user would pick instead, all in one run. `python -m bench`.

bench/app.py         what is called: a fixed answer, cheaper than any proxy
bench/contenders.py  pairs of sidecars: Lictor, Envoy by Consul, Envoy by hand, HAProxy, Consul's own proxy
bench/rules.py       what a pair follows: routes, intentions, retries
bench/measure.py     one round: load, CPU time of the proxies' processes, latency, memory
bench/__main__.py    rounds, interleaved; the table; results.json

bench/scale.py       a large mesh (large_mesh.py) from an agent of its own (canned_agent.py): what keeps the loop (stalls.py)
"""
