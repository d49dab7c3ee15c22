# make test            every interpreter of this machine, and the linters; everything it needs it sets up in .venv
# make test PY=py311   that one alone (names as in tox.ini)
# make fuzz            ten minutes of what `make test` does for 45 s: inputs by chance (FUZZ=3600: an hour)
# make demo            the agent at work, in a temporary folder
# make bundle          what is copied to a host, in dist/: the tree as an archive, and the agent in one file
# make packages        these, a .deb and an .rpm (dpkg-deb, rpmbuild)
# make soak            an hour of load and faults: nothing is lost, and nothing held that was not held before
# make crash           the agent killed 2,000 times and started again: no file lost, none sent twice but those in flight
# make bench           beside cURL, requests, aiohttp, pycurl and rclone (BENCH='--loads small': a part of it; --help)
# make faults          every kind of system call fails with every error while the agent works, then several at random

PYTHON = python3
PY =
FUZZ = 600
BENCH =

test: .venv/bin/tox
	@.venv/bin/python tests/interpreters.py $(PY)

fuzz: .venv/bin/tox
	@ENVIO_FUZZ_SECONDS=$(FUZZ) .venv/bin/tox run -e fuzz

demo:
	@bin/envio demo

bundle:
	@$(PYTHON) bin/bundle.py

packages:
	@$(PYTHON) bin/bundle.py deb rpm

soak:
	@$(PYTHON) bench/soak.py

crash:
	@$(PYTHON) bench/crash.py

faults:
	@$(PYTHON) bench/faults.py

# What can't be installed is not compared: the program says so.
bench: .tox/peers/bin/python
	@-for module in requests aiohttp pycurl; do \
	    $< -c "import $$module" 2>/dev/null || $< -m pip install --quiet --only-binary :all: $$module; done
	@$(PYTHON) bench/peers.py $(BENCH)

.tox/peers/bin/python:
	-$(PYTHON) -m venv --clear .tox/peers

.venv/bin/tox: Makefile
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip install --quiet 'tox>=4' 'virtualenv<20.22'
	@touch $@

clean:
	rm -rf .venv .tox build dist envio.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

.PHONY: test fuzz demo bundle packages soak crash bench faults clean
