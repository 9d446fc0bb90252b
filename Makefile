# make demo    the main job, on the miniature: convert, see, read, hear, chat
# make test    all tests that need neither torch nor a network
# make lint    ruff and mypy
# make reference    the tests that run transformers and mlx-vlm live (installs torch)

.PHONY: demo test lint format reference clean

demo: .venv/.run
	@.venv/bin/gemma-mlx demo

test: .venv/.dev
	@.venv/bin/python -m pytest

lint: .venv/.dev
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

format: .venv/.dev
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

reference: .venv/.reference
	@.venv/bin/python -m pytest -m reference

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/.run: pyproject.toml
	@sh .ci/venv
	@touch $@

.venv/.dev: pyproject.toml
	@sh .ci/venv dev
	@touch $@ .venv/.run

.venv/.reference: pyproject.toml
	@sh .ci/venv dev reference
	@touch $@ .venv/.run .venv/.dev
