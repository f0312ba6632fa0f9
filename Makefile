# Every word works from a fresh clone. `make demo` shows the mesh, `make test` proves it.
PYTHON ?= python3
BIN := .venv/bin
COMPOSE = $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

.PHONY: setup servers demo test restart-test check coverage pythons e2e edge-checks bench up down clean lock

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

servers: setup
	$(BIN)/python scripts/servers

demo: setup $(if $(REAL),servers)
	$(BIN)/python -m harness.demo

# Most of them wait for servers, so there is one worker more than cores.
WORKERS ?= $(shell expr $$(nproc) + 1)
# A test that hangs in C sees no signal: after a quarter of an hour its worker says where it is, and ends. N asks for long tests.
HANGING = $(if $(N),,-o faulthandler_timeout=900 -o faulthandler_exit_on_timeout=true)
test: servers
	PYTHONASYNCIODEBUG=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 15 $(HANGING) $(ARGS)

# 20 rounds of what `make test` does once: gateway and sidecars are restarted under load, no request may fail.
restart-test: servers
	RESTARTS=20 $(BIN)/pytest -s tests/conformance/test_changes.py -k restarted $(ARGS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What decides is judged by its own tests, branch by branch: the whole of policies/, and each part of its core.
CORE = intentions chain compiler outbounds listeners routes route_index edge/http_routes edge/api_gateway edge/api_listeners edge/ingress retries outliers limits splits balance rotation snapshot updates reducer wanted identity filters paths
coverage: setup
	$(BIN)/pytest -q -n 2 --dist loadfile --cov=policies --cov-report= tests/unit tests/property --ignore-glob='*/test_fuzz_*' $(ARGS)
	$(BIN)/coverage report --skip-covered --fail-under=90
	@for module in $(CORE); do \
		said=$$($(BIN)/coverage report -m --include=policies/$$module.py --fail-under=97) || { echo "$$said"; exit 1; }; \
	done

pythons: setup
	$(BIN)/python scripts/pythons $(ARGS)

e2e: servers
	$(BIN)/python scripts/e2e $(ARGS)

# By hand, since each wants a program of its own: testssl.sh, slowhttptest.
edge-checks: setup
	$(BIN)/python scripts/callers
	$(BIN)/python scripts/tls-checks
	$(BIN)/python scripts/slow-clients $(ARGS)

bench: servers
	scripts/bench-tools
	$(BIN)/python -m bench --python .venv-bench/bin/python $(ARGS)

up:
	$(COMPOSE) up --build --detach

down:
	$(COMPOSE) down --volumes --remove-orphans

# After a change of the dependencies. The extras stay in the names: pip asks a hash for `coverage[toml]`, not for `coverage`.
LOCK = uv pip compile --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --no-strip-extras --quiet
lock:
	$(LOCK) --all-extras pyproject.toml -o constraints.txt
	$(LOCK) pyproject.toml -c constraints.txt -o requirements.txt

clean:
	rm -rf .venv .venv-bench .venv-3.* .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
