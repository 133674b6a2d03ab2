# Aliases of the commands that are typed most: ./orthanc-stack --help lists all, with their options.
STACK ?= dev
PYTHON ?= python3
RUN = @$(PYTHON) ./orthanc-stack

.PHONY: help up down preview outputs verify status destroy test test-slow lint bench soak

help:
	$(RUN) --help

up down preview outputs verify status destroy:
	$(RUN) $@ $(STACK)

test lint bench soak:
	$(RUN) dev $@

test-slow:
	$(RUN) dev test --slow
