# make test            every interpreter of this machine, and the linters; everything it needs it sets up in .venv
# make test PY=py311   that one alone (names as in tox.ini)
# make demo            the agent at work, in a temporary folder

PYTHON = python3
PY =

test: .venv/bin/tox
	@.venv/bin/python tests/interpreters.py $(PY)

demo:
	@bin/envio demo

.venv/bin/tox: Makefile
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip install --quiet 'tox>=4' 'virtualenv<20.22'
	@touch $@

clean:
	rm -rf .venv .tox build envio.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

.PHONY: test demo clean
